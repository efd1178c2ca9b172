"""What requests may hold and what answers hold, one file per resource."""
