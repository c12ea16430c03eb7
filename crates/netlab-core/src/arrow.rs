//! The Arrow C data interface by hand: a batch of columns as an `ArrowArrayStream` in a capsule.
//!
//! The structures and their contracts are those of the Arrow specification ("The Arrow C data
//! interface", "The Arrow C stream interface", "The Arrow PyCapsule interface"). They are C structures
//! with release callbacks, so this module and `netlab-mem` are the two places with unsafe code; it
//! cannot live behind `netlab-capture`'s `forbid(unsafe_code)`, and a crate for it would bring more.
//!
//! Ownership: every structure owns its `private_data`, a leaked box, and its release callback turns it
//! back into a box exactly once, then clears `release` as the contract demands.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;

use netlab_capture::table::{Cells, Column, Field, Kind};
use pyo3::prelude::*;

#[repr(C)]
struct ArrowSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut ArrowSchema,
    dictionary: *mut ArrowSchema,
    release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    private_data: *mut c_void,
}

#[repr(C)]
struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut ArrowArray,
    dictionary: *mut ArrowArray,
    release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    private_data: *mut c_void,
}

#[repr(C)]
struct ArrowArrayStream {
    get_schema: Option<unsafe extern "C" fn(*mut ArrowArrayStream, *mut ArrowSchema) -> c_int>,
    get_next: Option<unsafe extern "C" fn(*mut ArrowArrayStream, *mut ArrowArray) -> c_int>,
    get_last_error: Option<unsafe extern "C" fn(*mut ArrowArrayStream) -> *const c_char>,
    release: Option<unsafe extern "C" fn(*mut ArrowArrayStream)>,
    private_data: *mut c_void,
}

// SAFETY: the structures own plain memory reached only through the consumer's calls, one at a time.
unsafe impl Send for ArrowArrayStream {}

/// Produces the batches of a stream; `None` ends it.
pub type Batches = Box<dyn FnMut() -> Option<Vec<Column>> + Send>;

struct SchemaParts {
    _format: CString,
    _name: CString,
    children: Vec<*mut ArrowSchema>,
}

/// What keeps an array's buffers alive: the column itself (bit-packed copies for booleans).
struct ArrayParts {
    _column: Option<Column>,
    _bits: Vec<u8>,
    _buffers: Vec<*const c_void>,
    children: Vec<*mut ArrowArray>,
}

struct StreamParts {
    fields: Vec<Field>,
    batches: Batches,
}

const NULLABLE: i64 = 2;

fn format_of(kind: Kind) -> &'static str {
    match kind {
        Kind::U64 => "L",
        Kind::I64 => "l",
        Kind::F64 => "g",
        Kind::Bool => "b",
        Kind::Text => "u",
        Kind::List => "+l",
    }
}

fn schema(format: &str, name: &str, flags: i64, children: Vec<ArrowSchema>) -> ArrowSchema {
    // A name with a NUL cannot come from our tables; an empty one is the harmless answer.
    let format = CString::new(format).unwrap_or_default();
    let name = CString::new(name).unwrap_or_default();
    let children: Vec<_> = children.into_iter().map(|child| Box::into_raw(Box::new(child))).collect();
    let (format_at, name_at) = (format.as_ptr(), name.as_ptr());
    let mut parts = Box::new(SchemaParts { _format: format, _name: name, children });
    ArrowSchema {
        format: format_at,
        name: name_at,
        metadata: ptr::null(),
        flags,
        n_children: parts.children.len() as i64,
        children: parts.children.as_mut_ptr(),
        dictionary: ptr::null_mut(),
        release: Some(release_schema),
        private_data: Box::into_raw(parts).cast(),
    }
}

fn field_schema(field: &Field) -> ArrowSchema {
    let items = if field.kind == Kind::List { vec![schema("I", "item", 0, Vec::new())] } else { Vec::new() };
    schema(format_of(field.kind), &field.name, NULLABLE, items)
}

fn array(
    length: usize,
    nulls: usize,
    column: Option<Column>,
    bits: Vec<u8>,
    children: Vec<ArrowArray>,
) -> ArrowArray {
    let mut buffers: Vec<*const c_void> = Vec::new();
    if let Some(column) = &column {
        buffers.push(if column.nulls == 0 { ptr::null() } else { column.valid.as_ptr().cast() });
        match &column.cells {
            Cells::U64(cells) => buffers.push(cells.as_ptr().cast()),
            Cells::I64(cells) => buffers.push(cells.as_ptr().cast()),
            Cells::F64(cells) => buffers.push(cells.as_ptr().cast()),
            Cells::Bool(_) => buffers.push(bits.as_ptr().cast()),
            Cells::Text { ends, bytes } => {
                buffers.extend([ends.as_ptr().cast(), bytes.as_ptr().cast::<c_void>()])
            }
            Cells::List { ends, .. } => buffers.push(ends.as_ptr().cast()),
        }
    } else if bits.is_empty() {
        buffers.push(ptr::null());
    } else {
        // The items of a list: no validity, the values themselves.
        buffers.extend([ptr::null(), bits.as_ptr().cast::<c_void>()]);
    }
    let children: Vec<_> = children.into_iter().map(|child| Box::into_raw(Box::new(child))).collect();
    let mut parts = Box::new(ArrayParts { _column: column, _bits: bits, _buffers: buffers, children });
    ArrowArray {
        length: length as i64,
        null_count: nulls as i64,
        offset: 0,
        n_buffers: parts._buffers.len() as i64,
        n_children: parts.children.len() as i64,
        buffers: parts._buffers.as_mut_ptr(),
        children: parts.children.as_mut_ptr(),
        dictionary: ptr::null_mut(),
        release: Some(release_array),
        private_data: Box::into_raw(parts).cast(),
    }
}

fn column_array(column: Column) -> ArrowArray {
    let (length, nulls) = (column.len, column.nulls);
    let (mut bits, mut children) = (Vec::new(), Vec::new());
    match &column.cells {
        Cells::Bool(cells) => {
            bits = vec![0u8; cells.len().div_ceil(8).max(1)];
            cells.iter().enumerate().filter(|(_, set)| **set).for_each(|(i, _)| bits[i / 8] |= 1 << (i % 8));
        }
        Cells::List { items, .. } => {
            // Padded so that the buffer is never empty: an empty one would read as "no buffer".
            let mut bytes: Vec<u8> = items.iter().flat_map(|item| item.to_ne_bytes()).collect();
            bytes.extend_from_slice(&[0; 8]);
            children.push(array(items.len(), 0, None, bytes, Vec::new()));
        }
        _ => {}
    }
    array(length, nulls, Some(column), bits, children)
}

unsafe extern "C" fn release_schema(schema: *mut ArrowSchema) {
    // SAFETY: called once by the owner with the structure this module filled; children are ours.
    unsafe {
        let parts = Box::from_raw((*schema).private_data.cast::<SchemaParts>());
        for &child in &parts.children {
            if let Some(release) = (*child).release {
                release(child);
            }
            drop(Box::from_raw(child));
        }
        (*schema).release = None;
    }
}

unsafe extern "C" fn release_array(array: *mut ArrowArray) {
    // SAFETY: as for schemas; a consumer that moved a child away cleared that child's release.
    unsafe {
        let parts = Box::from_raw((*array).private_data.cast::<ArrayParts>());
        for &child in &parts.children {
            if let Some(release) = (*child).release {
                release(child);
            }
            drop(Box::from_raw(child));
        }
        (*array).release = None;
    }
}

unsafe extern "C" fn stream_schema(stream: *mut ArrowArrayStream, out: *mut ArrowSchema) -> c_int {
    // SAFETY: `stream` is ours and alive, `out` is the consumer's uninitialised structure.
    unsafe {
        let parts = &*(*stream).private_data.cast::<StreamParts>();
        let children = parts.fields.iter().map(field_schema).collect();
        ptr::write(out, schema("+s", "", 0, children));
    }
    0
}

unsafe extern "C" fn stream_next(stream: *mut ArrowArrayStream, out: *mut ArrowArray) -> c_int {
    // SAFETY: as above; calls on one stream do not overlap, so the mutable borrow is the only one.
    unsafe {
        let parts = &mut *(*stream).private_data.cast::<StreamParts>();
        let next = (parts.batches)().map(|columns| {
            let length = columns.first().map_or(0, |column| column.len);
            array(length, 0, None, Vec::new(), columns.into_iter().map(column_array).collect())
        });
        match next {
            Some(batch) => ptr::write(out, batch),
            None => (*out).release = None,
        }
    }
    0
}

unsafe extern "C" fn stream_error(_: *mut ArrowArrayStream) -> *const c_char {
    ptr::null()
}

unsafe extern "C" fn release_stream(stream: *mut ArrowArrayStream) {
    // SAFETY: called once by the owner; the box was leaked in `capsule`.
    unsafe {
        drop(Box::from_raw((*stream).private_data.cast::<StreamParts>()));
        (*stream).release = None;
    }
}

unsafe extern "C" fn free_capsule(capsule: *mut pyo3::ffi::PyObject) {
    // SAFETY: destructor of the capsule made below: the pointer is our boxed stream. A consumer that
    // moved the stream out has cleared `release`, so nothing is freed twice.
    unsafe {
        let at = pyo3::ffi::PyCapsule_GetPointer(capsule, c"arrow_array_stream".as_ptr());
        if !at.is_null() {
            let mut stream = Box::from_raw(at.cast::<ArrowArrayStream>());
            if let Some(release) = stream.release {
                release(&mut *stream);
            }
        }
    }
}

/// A capsule named `arrow_array_stream` over `batches`.
pub fn capsule(py: Python<'_>, fields: Vec<Field>, batches: Batches) -> PyResult<Py<PyAny>> {
    let parts = Box::new(StreamParts { fields, batches });
    let stream = Box::new(ArrowArrayStream {
        get_schema: Some(stream_schema),
        get_next: Some(stream_next),
        get_last_error: Some(stream_error),
        release: Some(release_stream),
        private_data: Box::into_raw(parts).cast(),
    });
    // SAFETY: a fresh boxed stream goes to the capsule, whose destructor takes it back.
    unsafe {
        let made = pyo3::ffi::PyCapsule_New(
            Box::into_raw(stream).cast(),
            c"arrow_array_stream".as_ptr(),
            Some(free_capsule),
        );
        Bound::from_owned_ptr_or_err(py, made).map(Bound::unbind)
    }
}
