"""What captures, snapshots and recordings say: pure, without processes or clocks."""
