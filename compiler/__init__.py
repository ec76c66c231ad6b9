"""From a plan to rank programs: build, trace, place, cut, schedule, emit."""
