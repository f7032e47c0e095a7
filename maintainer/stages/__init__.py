"""The stages of one run, in their order: looking, marking, planning, acting, reporting."""
