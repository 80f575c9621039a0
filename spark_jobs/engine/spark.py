"""The Spark session of a profile: one a process, quiet, UTC. And what its JVM died of, where it did."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from infra import endings
from infra.errors import PlumblineError, TransientError
from infra.profile import Profile

# The code of many row rules grows past 8,000 bytes, beyond which HotSpot compiles no method unless told to.
_COMPILES = "-XX:-DontCompileHugeMethods"
_CLASSES = Path(sys.prefix, "spark-classes.jsa")  # `scripts/setup.sh` makes it
_MEMORY = "spark.driver.memory"
_OUT_OF_MEMORY = "java.lang.OutOfMemoryError"
_OUT_OF_MEMORY_CODE = 52  # with which Spark ends its JVM where a task ran out of memory
_SECONDS = 30.0  # in which a JVM that stops has ended


def spark_session(profile: Profile) -> SparkSession:
    """The running session, or a new one with the profile's master and configuration.

    Raises:
        PlumblineError: there is no Java, or one that Spark cannot run on.
    """
    # The workers that read landing files need what this interpreter has; `python3` on PATH may be any.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("plumbline").master(profile.spark.master)
    builder = builder.config("spark.driver.extraJavaOptions", " ".join((_COMPILES, *_archived())))
    builder = builder.config("spark.executor.extraJavaOptions", _COMPILES)
    for key, value in profile.spark.conf.items():
        builder = builder.config(key, value)
    session = _started(builder.config("spark.ui.showConsoleProgress", "false"))
    session.sparkContext.setLogLevel("WARN")
    # A connection that ends with the JVM is no news beside the end of the JVM, which `explained` tells.
    session.sparkContext._accumulatorServer.handle_error = lambda *_: None
    logging.getLogger().addFilter(_is_news)
    return session


def _archived() -> Iterator[str]:
    """What lets the JVM map Spark's classes instead of reading them. An archive that is not of its Java and packages
    it passes over."""
    if _CLASSES.is_file():
        yield f"-XX:SharedArchiveFile={_CLASSES}"


def _is_news(record: logging.LogRecord) -> bool:
    """Not what py4j says of a lost JVM, on the root logger: it reaches us as an exception, for `explained`."""
    return record.msg != "Exception while sending command."


@contextmanager
def explained(profile: Profile) -> Iterator[None]:
    """Say what Spark's JVM died of, where the work inside fails because it did.

    Raises:
        TransientError: it was killed or stopped, or its memory did not suffice.
        PlumblineError: it crashed.
    """
    try:
        yield
    except PlumblineError:
        raise
    except Exception as error:
        code = _jvm_code()
        said = str(error) if code is None else ""  # the text of a Java exception is asked from the JVM
        try:
            _explain(code, said, profile)
        except PlumblineError as known:
            raise known from error
        raise


def _explain(code: int | None, said: str, profile: Profile) -> None:
    memory, file = profile.spark.conf.get(_MEMORY, "not set"), f"infra/profiles/{profile.name}.yaml"
    setting = f"{_MEMORY} (now {memory}) in {file}"
    if code == _OUT_OF_MEMORY_CODE or _OUT_OF_MEMORY in said:
        raise TransientError(
            "Spark's JVM ran out of memory.",
            why=f"{_OUT_OF_MEMORY}: what it had to hold at once was more than it may use.",
            do=f"Give it more: {setting}. Or ask for fewer days at once (--from). A retry alone helps only by chance.",
        )
    again = (
        "Run again, with less beside it: what is committed is not done twice. If it is killed again, give the machine"
    )
    endings.explain("Spark's JVM", code or 0, do=f"{again} more memory, or Spark less: {setting}.")


def _jvm_code() -> int | None:
    """The exit code of the JVM that this process has started; None while it works, and under `spark-submit`."""
    context, process = SparkContext._active_spark_context, getattr(SparkContext._gateway, "proc", None)
    if context is None or process is None:
        return None
    try:
        if not context._jsc.sc().isStopped():
            return None
    except (Py4JError, OSError):
        pass  # nobody is there to answer
    try:
        return int(process.wait(_SECONDS))
    except subprocess.TimeoutExpired:
        return None


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
