"""The Spark session of a profile: one a process, quiet, UTC."""

from __future__ import annotations

import os
import sys

from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from infra.errors import PlumblineError
from infra.profile import Profile


def spark_session(profile: Profile) -> SparkSession:
    """The running session, or a new one with the profile's master and configuration.

    Raises:
        PlumblineError: there is no Java, or one that Spark cannot run on.
    """
    # The workers that read landing files need what this interpreter has; `python3` on PATH may be any.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("plumbline").master(profile.spark.master)
    # The code of many row rules grows past 8,000 bytes, beyond which HotSpot compiles no method unless told to.
    builder = builder.config("spark.driver.extraJavaOptions", "-XX:-DontCompileHugeMethods")
    builder = builder.config("spark.executor.extraJavaOptions", "-XX:-DontCompileHugeMethods")
    for key, value in profile.spark.conf.items():
        builder = builder.config(key, value)
    session = _started(builder.config("spark.ui.showConsoleProgress", "false"))
    session.sparkContext.setLogLevel("WARN")
    return session


def _started(builder: SparkSession.Builder) -> SparkSession:
    try:
        return builder.getOrCreate()
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        home = os.environ.get("JAVA_HOME")
        raise PlumblineError(
            "Java did not start.",
            where=f"JAVA_HOME={home}" if home else "the `java` on PATH (JAVA_HOME is not set)",
            why="There is none, or one that Spark cannot run on; its own words are above, if it had any.",
            do="Install Java 17 or 21, or set JAVA_HOME to the folder of one.",
        ) from error
