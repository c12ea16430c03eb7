//! Columns: what a table is made of, whoever consumes it.

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing known.
    Null,
    /// Unsigned.
    U64(u64),
    /// Signed.
    I64(i64),
    /// Real.
    F64(f64),
    /// Yes or no.
    Bool(bool),
    /// Text.
    Text(String),
    /// Several unsigned numbers (SACK edges).
    List(Vec<u32>),
}

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    U64,
    I64,
    F64,
    Bool,
    Text,
    List,
}

impl Kind {
    /// The name used in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::U64 => "uint64",
            Self::I64 => "int64",
            Self::F64 => "float64",
            Self::Bool => "bool",
            Self::Text => "string",
            Self::List => "list<uint32>",
        }
    }
}

/// The cells of a column, with room for absent ones.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Cells {
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    Text { ends: Vec<i32>, bytes: Vec<u8> },
    List { ends: Vec<i32>, items: Vec<u32> },
}

/// A column of a batch of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Cells; absent ones hold 0 or "".
    pub cells: Cells,
    /// Which cells are present, least significant bit first.
    pub valid: Vec<u8>,
    /// Cells.
    pub len: usize,
    /// Absent cells.
    pub nulls: usize,
}

impl Column {
    /// An empty column.
    pub fn new(kind: Kind) -> Self {
        let cells = match kind {
            Kind::U64 => Cells::U64(Vec::new()),
            Kind::I64 => Cells::I64(Vec::new()),
            Kind::F64 => Cells::F64(Vec::new()),
            Kind::Bool => Cells::Bool(Vec::new()),
            Kind::Text => Cells::Text { ends: vec![0], bytes: Vec::new() },
            Kind::List => Cells::List { ends: vec![0], items: Vec::new() },
        };
        Self { cells, valid: Vec::new(), len: 0, nulls: 0 }
    }

    /// Append a cell; one of another type than the column's counts as absent.
    pub fn push(&mut self, value: Value) {
        let present = match (&mut self.cells, value) {
            (Cells::U64(cells), Value::U64(v)) => push(cells, v),
            (Cells::I64(cells), Value::I64(v)) => push(cells, v),
            (Cells::F64(cells), Value::F64(v)) => push(cells, v),
            (Cells::Bool(cells), Value::Bool(v)) => push(cells, v),
            (Cells::Text { ends, bytes }, Value::Text(v)) => {
                bytes.extend_from_slice(v.as_bytes());
                push(ends, i32::try_from(bytes.len()).unwrap_or(i32::MAX))
            }
            (Cells::List { ends, items }, Value::List(v)) => {
                items.extend_from_slice(&v);
                push(ends, i32::try_from(items.len()).unwrap_or(i32::MAX))
            }
            (Cells::U64(cells), _) => !push(cells, 0),
            (Cells::I64(cells), _) => !push(cells, 0),
            (Cells::F64(cells), _) => !push(cells, 0.0),
            (Cells::Bool(cells), _) => !push(cells, false),
            (Cells::Text { ends, .. } | Cells::List { ends, .. }, _) => {
                !push(ends, ends.last().copied().unwrap_or(0))
            }
        };
        if self.len % 8 == 0 {
            self.valid.push(0);
        }
        if present {
            if let Some(last) = self.valid.last_mut() {
                *last |= 1 << (self.len % 8);
            }
        } else {
            self.nulls += 1;
        }
        self.len += 1;
    }

    /// The cell of a row.
    pub fn get(&self, row: usize) -> Value {
        if self.valid.get(row / 8).is_none_or(|byte| byte >> (row % 8) & 1 == 0) {
            return Value::Null;
        }
        let span = |ends: &[i32]| ends[row] as usize..ends[row + 1] as usize;
        match &self.cells {
            Cells::U64(cells) => Value::U64(cells[row]),
            Cells::I64(cells) => Value::I64(cells[row]),
            Cells::F64(cells) => Value::F64(cells[row]),
            Cells::Bool(cells) => Value::Bool(cells[row]),
            Cells::Text { ends, bytes } => {
                Value::Text(String::from_utf8_lossy(&bytes[span(ends)]).into_owned())
            }
            Cells::List { ends, items } => Value::List(items[span(ends)].to_vec()),
        }
    }
}

fn push<T>(cells: &mut Vec<T>, value: T) -> bool {
    cells.push(value);
    true
}

/// A column's description: the schema is made of these, and so are the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Column name.
    pub name: String,
    /// Type.
    pub kind: Kind,
    /// Unit, or empty.
    pub unit: &'static str,
    /// What the value means.
    pub meaning: &'static str,
    /// Where the definition comes from: a tshark field, a tool, an RFC.
    pub source: &'static str,
}
