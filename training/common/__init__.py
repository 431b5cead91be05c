"""What every stage and several rooms share."""
