"""Three hosts on one machine, real calls, a dead leader: what a newcomer sees first."""
