package cdr

// AgentFaults are agentFaults.
var AgentFaults = agentFaults
