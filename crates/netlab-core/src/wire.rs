//! `netlab._core.run_wire`: the userspace link of `netlab-wire`, for the process that serves one.

use std::os::fd::RawFd;

use netlab_wire::WireError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Errors become those of `netlab.errors`, found only when needed so that importing stays cheap.
fn raise(py: Python<'_>, error: &WireError) -> PyErr {
    let class = match error {
        WireError::Config(_) => "UsageError",
        WireError::Forbidden(_) => "CapabilityError",
        WireError::System(..) => "EngineError",
    };
    let text = error.to_string();
    match py.import("netlab.errors").and_then(|module| module.getattr(class)) {
        Ok(class) => match class.call1((text,)) {
            Ok(instance) => PyErr::from_value(instance),
            Err(error) => error,
        },
        Err(_) => PyRuntimeError::new_err(text),
    }
}

/// Run a wire until it is told to quit; its last counters as JSON.
#[pyfunction]
pub fn run_wire(py: Python<'_>, config: &str, control: RawFd) -> PyResult<String> {
    match py.detach(|| netlab_wire::run(config, control)) {
        Ok(counters) => Ok(counters.to_string()),
        Err(error) => Err(raise(py, &error)),
    }
}
