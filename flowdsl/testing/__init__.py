"""What users test their workflows with."""
