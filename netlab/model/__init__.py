"""What a lab is: a Topology, complete and immutable."""
