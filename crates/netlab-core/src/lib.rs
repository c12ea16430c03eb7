//! `netlab._core`: the Python face of `netlab-capture`.

/// Native part of netlab: reads captures and analyses the flows in them.
#[pyo3::pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
