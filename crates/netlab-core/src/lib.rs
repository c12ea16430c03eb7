//! `netlab._core`: the Python face of `netlab-capture`. Thin: it converts arguments, releases the GIL
//! around whole calls, and maps errors in one place.

mod arrow;
mod table;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use netlab_capture::engine::{self, Options};
use netlab_capture::expression::Expression;
use netlab_capture::packet::proto;
use netlab_capture::rewrite;
use netlab_capture::schema;
use netlab_capture::segments::{Row, Series};
use netlab_capture::shard::{Keep, Wanted};
use netlab_capture::tcp::Rules;
use netlab_capture::{Error, Summary};
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use table::{Table, Whole};

/// Errors become `netlab.errors.CaptureError`, found only when needed so that importing stays cheap.
fn raise(py: Python<'_>, error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Interrupted => return PyErr::take(py).unwrap_or_else(|| PyRuntimeError::new_err(text)),
        Error::Request(_) => return PyValueError::new_err(text),
        _ => {}
    }
    match py.import("netlab.errors").and_then(|module| module.getattr("CaptureError")) {
        Ok(class) => match class.call1((text,)) {
            Ok(instance) => PyErr::from_value(instance),
            Err(error) => error,
        },
        Err(_) => PyRuntimeError::new_err(text),
    }
}

fn rules(semantics: &str) -> PyResult<Rules> {
    match semantics {
        "4.0" => Ok(Rules::V40),
        "4.4" => Ok(Rules::V44),
        other => Err(PyValueError::new_err(format!("semantics must be \"4.0\" or \"4.4\", not {other:?}"))),
    }
}

/// Run `work` without the GIL; it is asked now and then whether to go on.
fn detached(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(engine::Progress<'_>) -> Result<Summary, Error> + Send,
) -> PyResult<Summary> {
    let mut failure: Option<PyErr> = None;
    let slot = &mut failure;
    let outcome = py.detach(move || {
        let mut tell = |done: u64, size: Option<u64>, packets: u64| {
            Python::attach(|py| {
                let go_on = py.check_signals().and_then(|()| match &progress {
                    None => Ok(true),
                    Some(call) => {
                        let answer = call.call1(py, (done, size, packets))?;
                        Ok(answer.is_none(py) || answer.is_truthy(py)?)
                    }
                });
                go_on.unwrap_or_else(|error| {
                    *slot = Some(error);
                    false
                })
            })
        };
        work(&mut tell)
    });
    match (failure, outcome) {
        (Some(error), _) => Err(error),
        (None, Ok(summary)) => Ok(summary),
        (None, Err(error)) => Err(raise(py, error)),
    }
}

/// What a capture was found to hold.
#[pyclass(frozen, name = "Summary", module = "netlab._core")]
struct PySummary {
    inner: Arc<Summary>,
    path: PathBuf,
    options: Options,
}

/// Which segments `summarize` is to keep.
#[derive(FromPyObject)]
enum Segments {
    All(bool),
    Streams(Vec<u32>),
}

#[allow(clippy::too_many_arguments)]
fn summarize(
    py: Python<'_>,
    path: PathBuf,
    threads: usize,
    checksums: bool,
    semantics: &str,
    max_flows: Option<usize>,
    follow: bool,
    segments: Option<Segments>,
    series_bin_ns: Option<i64>,
    progress: Option<Py<PyAny>>,
    chunk: Option<u32>,
) -> PyResult<PySummary> {
    if series_bin_ns.is_some_and(|width| width <= 0) {
        return Err(PyValueError::new_err("series_bin_ns must be positive"));
    }
    if max_flows == Some(0) {
        return Err(PyValueError::new_err("max_flows must be at least 1"));
    }
    let segments = match segments {
        Some(Segments::All(true)) => Wanted::All,
        Some(Segments::Streams(list)) => Wanted::Streams(list),
        Some(Segments::All(false)) | None => Wanted::None,
    };
    let mut options = Options {
        threads,
        checksums,
        rules: rules(semantics)?,
        follow,
        keep: Keep { segments, bin_ns: series_bin_ns, max_flows },
        ..Options::default()
    };
    options.chunk = chunk.unwrap_or(options.chunk);
    let summary = detached(py, progress, |tell| engine::summarize(&path, &options, tell))?;
    Ok(PySummary { inner: Arc::new(summary), path, options })
}

impl PySummary {
    /// Rows of one TCP stream or of all: kept ones, or read again from the file.
    fn rows(&self, py: Python<'_>, stream: Option<u32>) -> PyResult<Vec<Row>> {
        let kept = match (&self.options.keep.segments, stream) {
            (Wanted::All, _) => true,
            (Wanted::Streams(list), Some(stream)) => list.contains(&stream),
            (Wanted::Streams(_), None) => true,
            _ => false,
        };
        let pick = |rows: &[Row]| -> Vec<Row> {
            rows.iter().filter(|row| stream.is_none_or(|stream| row.stream == stream)).cloned().collect()
        };
        if let (true, Some(rows)) = (kept, self.inner.segments()) {
            return Ok(pick(rows));
        }
        if let Some(number) = stream {
            if self.inner.tcp_stream(number).is_none() {
                return Err(PyKeyError::new_err(format!("there is no TCP stream {number}")));
            }
        }
        if !std::fs::metadata(&self.path).is_ok_and(|about| about.is_file()) {
            return Err(PyValueError::new_err(
                "the capture cannot be read a second time; ask summarize() to keep segments",
            ));
        }
        let segments = match stream {
            None => Wanted::All,
            Some(number) => {
                let flow = self.inner.tcp_stream(number).map(|f| (f.story.first_frame, f.story.layer));
                Wanted::Created(flow.into_iter().collect())
            }
        };
        let mut options = self.options.clone();
        options.follow = false;
        options.keep = Keep { segments, bin_ns: None, max_flows: options.keep.max_flows };
        let again = detached(py, None, |tell| engine::summarize(&self.path, &options, tell))?;
        Ok(again.segments().map(pick).unwrap_or_default())
    }
}

#[pymethods]
impl PySummary {
    /// Counts over the whole capture.
    #[getter]
    fn totals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        totals(py, &self.inner)
    }

    /// One row per flow, in order of first frames.
    #[getter]
    fn flows(&self) -> Table {
        Table::flows(Arc::clone(&self.inner))
    }

    /// One row per packet of a TCP stream, or of all.
    #[pyo3(signature = (stream=None))]
    fn segments(&self, py: Python<'_>, stream: Option<u32>) -> PyResult<Table> {
        let rows = self.rows(py, stream)?;
        let sides = self.inner.originators();
        let columns = py.detach(|| schema::segment_columns(&rows, &|s| sides.get(&s).copied().unwrap_or(0)));
        Ok(Table::whole(Whole { fields: schema::segment_fields(), columns }))
    }

    /// Packets, octets, retransmissions, flight and window per bin of `bin_ns` and direction, of a TCP
    /// stream or of all flows.
    #[pyo3(signature = (stream=None, bin_ns=None))]
    fn series(&self, py: Python<'_>, stream: Option<u32>, bin_ns: Option<i64>) -> PyResult<Table> {
        let width = bin_ns.or(self.options.keep.bin_ns).unwrap_or(1_000_000_000);
        if width <= 0 {
            return Err(PyValueError::new_err("bin_ns must be positive"));
        }
        if let (Some(bins), true) = (self.inner.series(), self.options.keep.bin_ns == Some(width)) {
            let bins: Vec<_> = bins
                .into_iter()
                .filter(|bin| stream.is_none_or(|s| bin.0 == proto::TCP && bin.1 == s))
                .collect();
            return Ok(Table::whole(Whole {
                fields: schema::series_fields(),
                columns: schema::series_columns(&bins),
            }));
        }
        let bins = match stream {
            Some(_) => {
                let sides = self.inner.originators();
                let mut series = Series::new(width);
                for row in self.rows(py, stream)? {
                    series.add(row.stream, &row.packet, row.verdict.flags, row.verdict.in_flight, row.window);
                }
                let mut bins: Vec<_> = series
                    .bins
                    .iter()
                    .map(|(&(stream, bin, dir), value)| {
                        let side = dir ^ sides.get(&stream).copied().unwrap_or(0);
                        (proto::TCP, stream, bin.saturating_mul(width), side, *value)
                    })
                    .collect();
                bins.sort_by_key(|&(_, stream, at, side, _)| (stream, at, side));
                bins
            }
            None => {
                let mut options = self.options.clone();
                options.follow = false;
                options.keep = Keep { segments: Wanted::None, bin_ns: Some(width), ..options.keep };
                let again = detached(py, None, |tell| engine::summarize(&self.path, &options, tell))?;
                again.series().unwrap_or_default()
            }
        };
        Ok(Table::whole(Whole { fields: schema::series_fields(), columns: schema::series_columns(&bins) }))
    }

    /// Octets of memory: flow records, their seldom parts, pools.
    #[getter]
    fn memory(&self) -> (usize, usize, usize) {
        self.inner.memory()
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    fn __repr__(&self) -> String {
        let totals = &self.inner.totals;
        format!(
            "<Summary of {}: {} packets, {} flows>",
            self.path.display(),
            totals.packets,
            self.inner.len()
        )
    }
}

/// Go through packets without the GIL, looking at signals and telling of progress now and then.
fn told<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(rewrite::Tell<'_>) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let mut failure: Option<PyErr> = None;
    let slot = &mut failure;
    let outcome = py.detach(move || {
        work(&mut |packets| {
            let answer = Python::attach(|py| {
                py.check_signals()?;
                match &progress {
                    None => Ok(true),
                    Some(call) => {
                        let answer = call.call1(py, (packets,))?;
                        Ok(answer.is_none(py) || answer.is_truthy(py)?)
                    }
                }
            });
            answer.unwrap_or_else(|error| {
                *slot = Some(error);
                false
            })
        })
    });
    match (failure, outcome) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(raise(py, error)),
        (None, Ok(done)) => Ok(done),
    }
}

/// A packet with its octets, as Python gets it.
type FrameRow<'py> = (u64, i64, u32, u16, Bound<'py, PyBytes>);

fn frames<'py>(
    py: Python<'py>,
    path: &std::path::Path,
    first: u64,
    count: usize,
    snap: usize,
) -> PyResult<Vec<FrameRow<'py>>> {
    let found = told(py, None, |tell| rewrite::frames(path, first, count, snap, tell))?;
    let row = |f: rewrite::Frame| (f.number, f.ts, f.original, f.link, PyBytes::new(py, &f.data));
    Ok(found.into_iter().map(row).collect())
}

/// Run a merge or filter; what it wrote, as a dictionary.
fn rewritten(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(rewrite::Tell<'_>) -> Result<rewrite::Written, Error> + Send,
) -> PyResult<Py<PyDict>> {
    let written = told(py, progress, work)?;
    let out = PyDict::new(py);
    out.set_item("read", written.read)?;
    out.set_item("written", written.written)?;
    out.set_item("warnings", written.warnings)?;
    Ok(out.unbind())
}

fn filter(
    py: Python<'_>,
    path: PathBuf,
    out: PathBuf,
    streams: Option<Vec<u32>>,
    frames: Option<Vec<u64>>,
    expression: Option<&str>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Py<PyDict>> {
    let expression = expression.map(Expression::parse).transpose().map_err(|error| raise(py, error))?;
    let mut frames = frames;
    if let Some(streams) = streams {
        let mut options = Options::default();
        options.keep.segments = Wanted::Streams(streams);
        let summary = detached(py, None, |tell| engine::summarize(&path, &options, tell))?;
        let within: Vec<u64> = summary.segments().unwrap_or_default().iter().map(|row| row.frame).collect();
        frames = Some(match frames {
            None => within,
            Some(listed) => {
                let listed: std::collections::HashSet<u64> = listed.into_iter().collect();
                within.into_iter().filter(|frame| listed.contains(frame)).collect()
            }
        });
    }
    if let Some(frames) = &mut frames {
        frames.sort_unstable();
    }
    let chosen = rewrite::Chosen { frames, expression };
    rewritten(py, progress, move |tell| rewrite::filter(&path, &out, &chosen, tell))
}

fn totals<'py>(py: Python<'py>, summary: &Summary) -> PyResult<Bound<'py, PyDict>> {
    let t = &summary.totals;
    let out = PyDict::new(py);
    out.set_item("format", t.format)?;
    out.set_item("compression", (!t.compression.is_empty()).then_some(t.compression))?;
    out.set_item("sections", t.sections)?;
    let interfaces = PyList::empty(py);
    for (i, interface) in t.interfaces.iter().enumerate() {
        let one = PyDict::new(py);
        one.set_item("id", i)?;
        one.set_item("section", interface.section)?;
        one.set_item("link_type", interface.link)?;
        one.set_item("snaplen", interface.snaplen)?;
        one.set_item("ticks_per_second", interface.resolution)?;
        one.set_item("offset_s", interface.offset)?;
        one.set_item("name", &interface.name)?;
        one.set_item("description", &interface.description)?;
        one.set_item("filter", &interface.filter)?;
        one.set_item("packets", t.interface_packets.get(i).copied().unwrap_or(0))?;
        one.set_item("received", interface.received)?;
        one.set_item("dropped", interface.dropped)?;
        one.set_item("os_dropped", interface.os_dropped)?;
        interfaces.append(one)?;
    }
    out.set_item("interfaces", interfaces)?;
    out.set_item("comments", t.comments)?;
    out.set_item("packets", t.packets)?;
    out.set_item("other_records", t.other_records)?;
    out.set_item("bytes", t.bytes)?;
    out.set_item("captured_bytes", t.captured_bytes)?;
    out.set_item("first_ns", t.times().map(|(first, _)| first))?;
    out.set_item("last_ns", t.times().map(|(_, last)| last))?;
    out.set_item("untimed", t.untimed)?;
    out.set_item("time_back", t.time_back)?;
    out.set_item("cut_packets", t.cut_packets)?;
    let reasons = PyDict::new(py);
    for (name, &count) in netlab_capture::wire::REASONS.iter().zip(&t.counts.undecodable) {
        if count > 0 {
            reasons.set_item(*name, count)?;
        }
    }
    out.set_item("undecodable", reasons)?;
    let links = PyDict::new(py);
    for &(link, count) in &t.counts.unknown_links {
        links.set_item(link, count)?;
    }
    out.set_item("unknown_link_types", links)?;
    out.set_item("arp", t.counts.arp)?;
    out.set_item("fragments", t.counts.fragments)?;
    out.set_item("reassembled", t.counts.reassembled)?;
    out.set_item("fragments_dropped", t.counts.fragments_dropped)?;
    out.set_item("vlan", t.counts.vlan)?;
    out.set_item("tunnelled", t.counts.tunnelled)?;
    out.set_item("icmp_errors", t.counts.icmp_errors)?;
    let [good, bad, partial] = t.counts.checksums;
    out.set_item("checksums_good", good)?;
    out.set_item("checksums_bad", bad)?;
    out.set_item("checksums_partial", partial)?;
    out.set_item("flows", summary.len())?;
    out.set_item("evicted_flows", t.evicted.flows)?;
    out.set_item("evicted_packets", t.evicted.packets)?;
    out.set_item("evicted_bytes", t.evicted.bytes)?;
    out.set_item("truncated_at", t.truncated_at)?;
    out.set_item("damaged_at", t.damaged_at)?;
    out.set_item("warnings", &t.warnings)?;
    Ok(out)
}

/// Native part of netlab: reads captures and analyses the flows in them.
#[pymodule]
mod _core {
    use super::{PathBuf, PyResult, Python, Segments, schema};
    use netlab_capture::rewrite;
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    #[pymodule_export]
    use super::wire::run_wire;
    #[pymodule_export]
    use super::{PySummary, Table};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }

    /// Read the capture at `path` and say what its flows did.
    #[pyfunction]
    #[pyo3(signature = (path, *, threads=1, checksums=false, semantics="4.0", max_flows=None, follow=false,
                        segments=None, series_bin_ns=None, progress=None, chunk=None))]
    #[allow(clippy::too_many_arguments)]
    fn summarize(
        py: Python<'_>,
        path: PathBuf,
        threads: usize,
        checksums: bool,
        semantics: &str,
        max_flows: Option<usize>,
        follow: bool,
        segments: Option<Segments>,
        series_bin_ns: Option<i64>,
        progress: Option<Py<PyAny>>,
        chunk: Option<u32>,
    ) -> PyResult<super::PySummary> {
        super::summarize(
            py,
            path,
            threads,
            checksums,
            semantics,
            max_flows,
            follow,
            segments,
            series_bin_ns,
            progress,
            chunk,
        )
    }

    /// Merge captures in order of time into a pcapng.
    #[pyfunction]
    #[pyo3(signature = (paths, out, *, names=None, progress=None))]
    fn merge(
        py: Python<'_>,
        paths: Vec<PathBuf>,
        out: PathBuf,
        names: Option<Vec<String>>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyDict>> {
        let names = names.unwrap_or_default();
        super::rewritten(py, progress, move |tell| rewrite::merge(&paths, &names, &out, tell))
    }

    /// Read packets with their octets: (frame, ts_ns, length on the wire, link type, octets).
    #[pyfunction]
    #[pyo3(signature = (path, *, first=1, count=None, snap=None))]
    fn frames(
        py: Python<'_>,
        path: PathBuf,
        first: u64,
        count: Option<usize>,
        snap: Option<usize>,
    ) -> PyResult<Vec<super::FrameRow<'_>>> {
        super::frames(py, &path, first, count.unwrap_or(usize::MAX), snap.unwrap_or(usize::MAX))
    }

    /// Write the packets of `path` that satisfy every condition given into a pcapng.
    #[pyfunction]
    #[pyo3(signature = (path, out, *, streams=None, frames=None, expression=None, progress=None))]
    fn filter(
        py: Python<'_>,
        path: PathBuf,
        out: PathBuf,
        streams: Option<Vec<u32>>,
        frames: Option<Vec<u64>>,
        expression: Option<&str>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyDict>> {
        super::filter(py, path, out, streams, frames, expression, progress)
    }

    /// Every column of every table: (table, column, type, unit, meaning, source).
    #[pyfunction(name = "schema")]
    fn schema_() -> Vec<(String, String, String, String, String, String)> {
        let mut rows = Vec::new();
        for (table, fields) in schema::tables() {
            for field in fields {
                rows.push((
                    table.to_string(),
                    field.name,
                    field.kind.name().to_string(),
                    field.unit.to_string(),
                    field.meaning.to_string(),
                    field.source.to_string(),
                ));
            }
        }
        rows
    }
}
