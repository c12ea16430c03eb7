//! A table as Python sees it: rows on demand, or an Arrow stream of batches.

use std::sync::Arc;

use netlab_capture::Summary;
use netlab_capture::schema;
use netlab_capture::table::{Column, Field, Value};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::arrow;

/// Rows per batch of a flow table: made when asked for, so that a million flows need no second copy.
const BATCH: usize = 32_768;

/// A table that exists as a whole.
pub struct Whole {
    pub fields: Vec<Field>,
    pub columns: Vec<Column>,
}

#[derive(Clone)]
enum Rows {
    Flows(Arc<Summary>),
    Whole(Arc<Whole>),
}

/// Columns of equal length; polars, duckdb, pyarrow and nanoarrow take it through `__arrow_c_stream__`.
#[pyclass(frozen, module = "netlab._core")]
pub struct Table {
    rows: Rows,
}

fn object(py: Python<'_>, value: Value) -> PyResult<Py<PyAny>> {
    Ok(match value {
        Value::Null => py.None(),
        Value::U64(v) => v.into_pyobject(py)?.into_any().unbind(),
        Value::I64(v) => v.into_pyobject(py)?.into_any().unbind(),
        Value::F64(v) => v.into_pyobject(py)?.into_any().unbind(),
        Value::Bool(v) => v.into_pyobject(py)?.to_owned().into_any().unbind(),
        Value::Text(v) => v.into_pyobject(py)?.into_any().unbind(),
        Value::List(v) => v.into_pyobject(py)?.into_any().unbind(),
    })
}

impl Table {
    pub fn flows(summary: Arc<Summary>) -> Self {
        Self { rows: Rows::Flows(summary) }
    }

    pub fn whole(table: Whole) -> Self {
        Self { rows: Rows::Whole(Arc::new(table)) }
    }

    fn fields(&self) -> Vec<Field> {
        match &self.rows {
            Rows::Flows(_) => schema::flow_fields(),
            Rows::Whole(table) => table.fields.clone(),
        }
    }

    fn len(&self) -> usize {
        match &self.rows {
            Rows::Flows(summary) => summary.len(),
            Rows::Whole(table) => table.columns.first().map_or(0, |column| column.len),
        }
    }
}

#[pymethods]
impl Table {
    /// Names of the columns.
    fn columns(&self) -> Vec<String> {
        self.fields().into_iter().map(|field| field.name).collect()
    }

    /// One column as a list.
    fn column(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyList>> {
        let Some(index) = self.fields().iter().position(|field| field.name == name) else {
            return Err(PyKeyError::new_err(format!("there is no column {name:?}")));
        };
        let out = PyList::empty(py);
        let mut add = |column: &Column| -> PyResult<()> {
            (0..column.len).try_for_each(|row| out.append(object(py, column.get(row))?))
        };
        match &self.rows {
            Rows::Flows(summary) => {
                for column in schema::flow_columns(summary, 0..summary.len(), Some(&[index])) {
                    add(&column)?;
                }
            }
            Rows::Whole(table) => table.columns.get(index).map_or(Ok(()), &mut add)?,
        }
        Ok(out.unbind())
    }

    /// Rows start..stop (all by default) as dictionaries.
    #[pyo3(signature = (start=0, stop=None))]
    fn to_pylist(&self, py: Python<'_>, start: usize, stop: Option<usize>) -> PyResult<Py<PyList>> {
        let stop = stop.unwrap_or(usize::MAX).min(self.len());
        let names = self.columns();
        let out = PyList::empty(py);
        let mut at = start;
        while at < stop {
            let end = stop.min(at + BATCH);
            let made;
            let (columns, offset) = match &self.rows {
                Rows::Flows(summary) => {
                    made = schema::flow_columns(summary, at..end, None);
                    (&made, 0)
                }
                Rows::Whole(table) => (&table.columns, at),
            };
            for row in offset..offset + (end - at) {
                let one = PyDict::new(py);
                for (name, column) in names.iter().zip(columns) {
                    one.set_item(name, object(py, column.get(row))?)?;
                }
                out.append(one)?;
            }
            at = end;
        }
        Ok(out.unbind())
    }

    /// The Arrow PyCapsule interface; `requested_schema` is not negotiated.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__(&self, py: Python<'_>, requested_schema: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let _ = requested_schema;
        let rows = self.rows.clone();
        let mut at = 0;
        let len = self.len();
        let next = move || match &rows {
            Rows::Flows(summary) => {
                if at >= len {
                    return None;
                }
                let end = len.min(at + BATCH);
                let columns = schema::flow_columns(summary, at..end, None);
                at = end;
                Some(columns)
            }
            Rows::Whole(table) => {
                if at > 0 || len == 0 {
                    return None;
                }
                at = len;
                Some(table.columns.clone())
            }
        };
        arrow::capsule(py, self.fields(), Box::new(next))
    }

    fn __len__(&self) -> usize {
        self.len()
    }
}
