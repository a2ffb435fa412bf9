"""What a command can do: one file per `task=`."""
