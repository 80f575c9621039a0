"""What every Spark job goes through: plan, read, build, check, stage, publish."""
