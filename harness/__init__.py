"""Run a plan: settings, servers, load, sampling, store. Knows no engine, workload or chart."""
