//! llama.cpp's importance matrix in GGUF.
//!
//! For each weight two f32 tensors: `<name>.in_sum2`, the sums of squares of its input features, which are the column
//! norms themselves, `[in_features]` or `[experts, in_features]` (GGUF lists the fastest dimension first); and
//! `<name>.counts`, the tokens that went into each row. A count of 0 is an expert that was never chosen: its sums are
//! zeros, and the lookup says [`Lookup::Unseen`](super::Lookup::Unseen).
//!
//! This is not a GGUF library. It reads little-endian versions 2 and 3, skips everything it does not need, and compares
//! every length with the file before using it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::cursor::{Cursor, f32s};
use super::entries::Norms;
use super::error::Error;
use super::provenance::{Format, Provenance};
use crate::untrusted::shown;

const MAGIC: &[u8] = b"GGUF";
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// Bytes of the smallest tensor info: name length, number of dimensions, type, offset.
const SMALLEST_INFO: usize = 8 + 4 + 4 + 8;
/// Bytes of the smallest key and value: key length, type, one byte.
const SMALLEST_PAIR: usize = 8 + 4 + 1;
/// Dimensions a tensor can have.
const MAX_DIMS: u32 = 4;
/// The deepest nesting of arrays that is read; they are legal, and no writer is known to nest them.
const MAX_NESTING: u32 = 4;
/// The tensor type number of f32.
const F32: u32 = 0;

/// Whether the bytes start like a GGUF file.
pub(super) fn starts(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// A value of the metadata, as far as one is needed here.
enum Value<'a> {
    Integer(u64),
    Text(&'a str),
    Texts(Vec<&'a str>),
    /// Skipped.
    Other,
}

/// One entry of the tensor table.
struct Info<'a> {
    name: &'a str,
    /// Fastest first, ones at the end left out.
    dims: Vec<u64>,
    kind: u32,
    /// Bytes from the start of the data.
    offset: u64,
}

/// Reads an importance matrix.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Norms, Error> {
    let mut cursor = Cursor::new(bytes, path, Format::Gguf);
    cursor.take(MAGIC.len() as u64, "the magic number")?;
    let version = cursor.u32("the version")?;
    if !VERSIONS.contains(&version) {
        let what = if VERSIONS.contains(&version.swap_bytes()) {
            "it is big-endian".into()
        } else {
            format!("version {version}")
        };
        return Err(cursor.malformed(format!(
            "{what}, where little-endian versions 2 and 3 are read"
        )));
    }
    let tensors = cursor.u64("the number of tensors")?;
    let pairs = cursor.u64("the number of metadata values")?;
    if pairs > (cursor.remaining() / SMALLEST_PAIR) as u64 {
        return Err(cursor.malformed(format!("{pairs} metadata values do not fit the file")));
    }
    let mut metadata = BTreeMap::new();
    for _ in 0..pairs {
        let key = string(&mut cursor, "a metadata key")?;
        let kind = cursor.u32("a metadata type")?;
        let value = value(&mut cursor, kind, 0)?;
        metadata.insert(key, value);
    }
    if tensors > (cursor.remaining() / SMALLEST_INFO) as u64 {
        return Err(cursor.malformed(format!("{tensors} tensors do not fit the file")));
    }
    let infos = (0..tensors)
        .map(|_| info(&mut cursor))
        .collect::<Result<Vec<_>, _>>()?;

    let is_sums = |info: &Info| info.name.ends_with(".in_sum2");
    if !infos.iter().any(is_sums) {
        let what = match metadata.get("general.architecture") {
            Some(Value::Text(name)) => format!(
                "it is a GGUF model ({}), which has no `.in_sum2` tensors",
                shown(name)
            ),
            _ => "it is a GGUF file without `.in_sum2` tensors".into(),
        };
        return Err(Error::not_norms(path, what));
    }

    let data = data(bytes, &cursor, &metadata)?;
    let mut reader = GgufReader {
        data,
        cursor: &cursor,
        claimed: 0,
    };
    let mut seen = BTreeSet::new();
    let mut counts = BTreeMap::new();
    for info in &infos {
        if !seen.insert(info.name) {
            return Err(cursor.malformed(format!("`{}` is there twice", shown(info.name))));
        }
        if let Some(weight) = info.name.strip_suffix(".counts") {
            counts.insert(weight, reader.values(info)?);
        }
    }
    let mut norms = Norms::new(provenance(path, &metadata));
    for info in &infos {
        let Some(weight) = info.name.strip_suffix(".in_sum2") else {
            continue;
        };
        let sums = reader.values(info)?;
        let experts = match info.dims[..] {
            [_] => None,
            // The product fits memory, so each factor fits a usize.
            [_, experts] => Some(experts as usize),
            _ => {
                let what = format!(
                    "`{}` has {} dimensions, not 1 or 2",
                    shown(info.name),
                    info.dims.len()
                );
                return Err(cursor.malformed(what));
            }
        };
        if let Some(counts) = counts.get(weight) {
            check_counts(&cursor, weight, counts, experts.unwrap_or(1), &sums)?;
        }
        norms.put_new(weight.to_owned(), experts, sums)?;
    }
    Ok(norms)
}

/// The part of the file that tensor offsets count from.
fn data<'a>(
    bytes: &'a [u8],
    cursor: &Cursor,
    metadata: &BTreeMap<&str, Value>,
) -> Result<&'a [u8], Error> {
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(Value::Integer(n)) if n.is_power_of_two() && *n <= 1 << 20 => *n as usize,
        Some(_) => {
            return Err(cursor.malformed("`general.alignment` is not a power of two up to 2^20"));
        }
    };
    bytes
        .get(cursor.position().next_multiple_of(alignment)..)
        .ok_or_else(|| cursor.malformed("the file ends before the tensors"))
}

fn provenance(path: &Path, metadata: &BTreeMap<&str, Value>) -> Provenance {
    let integer = |key| match metadata.get(key) {
        Some(Value::Integer(n)) => Some(*n),
        _ => None,
    };
    let (chunks, chunk_size) = (
        integer("imatrix.chunk_count"),
        integer("imatrix.chunk_size"),
    );
    let mut kept = BTreeMap::new();
    for (key, value) in [("chunks", chunks), ("chunk_size", chunk_size)] {
        if let Some(value) = value {
            kept.insert(key.to_owned(), value.to_string());
        }
    }
    if let Some(Value::Texts(texts)) = metadata.get("imatrix.datasets") {
        kept.insert("text".to_owned(), texts.join(", "));
    }
    let tokens = chunks
        .zip(chunk_size)
        .and_then(|(chunks, size)| chunks.checked_mul(size));
    Provenance {
        path: path.to_owned(),
        format: Format::Gguf,
        tokens,
        metadata: kept,
    }
}

/// Checks that counts and sums agree.
fn check_counts(
    cursor: &Cursor,
    weight: &str,
    counts: &[f32],
    experts: usize,
    sums: &[f32],
) -> Result<(), Error> {
    // A file merged from the old form has one count for all experts.
    if counts.len() != experts && counts.len() != 1 {
        return Err(cursor.malformed(format!(
            "`{}` has {} counts for {experts} rows",
            shown(weight),
            counts.len()
        )));
    }
    for (row, (count, sums)) in counts
        .iter()
        .zip(sums.chunks_exact(sums.len() / counts.len()))
        .enumerate()
    {
        if *count == 0.0 && sums.iter().any(|n| *n != 0.0) {
            return Err(cursor.malformed(format!(
                "`{}` row {row} has sums over no tokens",
                shown(weight)
            )));
        }
    }
    Ok(())
}

/// Reads f32 tensors out of the data, and no byte twice: if two names could share a place, a small file could claim any
/// amount of memory.
struct GgufReader<'a> {
    data: &'a [u8],
    cursor: &'a Cursor<'a>,
    claimed: usize,
}

impl GgufReader<'_> {
    fn values(&mut self, info: &Info) -> Result<Vec<f32>, Error> {
        let malformed = |what: String| {
            self.cursor
                .malformed(format!("`{}` {what}", shown(info.name)))
        };
        if info.kind != F32 {
            return Err(malformed(format!(
                "is of tensor type {}, not f32",
                info.kind
            )));
        }
        let count = info.dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        let bytes = count
            .and_then(|n| n.checked_mul(4))
            .and_then(|n| usize::try_from(n).ok());
        let place = bytes
            .zip(usize::try_from(info.offset).ok())
            .and_then(|(n, at)| self.data.get(at..)?.get(..n));
        let place = place.ok_or_else(|| {
            malformed(format!(
                "({:?} at {}) reaches beyond the file",
                info.dims, info.offset
            ))
        })?;
        if place.is_empty() {
            return Err(malformed("holds no values".into()));
        }
        self.claimed += place.len();
        if self.claimed > self.data.len() {
            return Err(malformed("overlaps another tensor".into()));
        }
        Ok(f32s(place))
    }
}

fn string<'a>(cursor: &mut Cursor<'a>, what: &str) -> Result<&'a str, Error> {
    let length = cursor.u64(what)?;
    cursor.text(length, what)
}

fn info<'a>(cursor: &mut Cursor<'a>) -> Result<Info<'a>, Error> {
    let name = string(cursor, "a tensor name")?;
    let count = cursor.u32("a number of dimensions")?;
    if count > MAX_DIMS {
        return Err(cursor.malformed(format!("`{}` has {count} dimensions", shown(name))));
    }
    let mut dims = (0..count)
        .map(|_| cursor.u64("a dimension"))
        .collect::<Result<Vec<_>, _>>()?;
    while dims.len() > 1 && dims.last() == Some(&1) {
        dims.pop();
    }
    let kind = cursor.u32("a tensor type")?;
    let offset = cursor.u64("a tensor offset")?;
    Ok(Info {
        name,
        dims,
        kind,
        offset,
    })
}

/// Reads or skips one value of GGUF type `kind`.
fn value<'a>(cursor: &mut Cursor<'a>, kind: u32, depth: u32) -> Result<Value<'a>, Error> {
    const WHAT: &str = "a metadata value";
    Ok(match kind {
        // u32, u64: the only numbers that are asked for.
        4 => Value::Integer(cursor.u32(WHAT)?.into()),
        10 => Value::Integer(cursor.u64(WHAT)?),
        8 => Value::Text(string(cursor, WHAT)?),
        9 => array(cursor, depth)?,
        _ => {
            let size = fixed_size(kind)
                .ok_or_else(|| cursor.malformed(format!("metadata type {kind}")))?;
            cursor.take(size, WHAT)?;
            Value::Other
        }
    })
}

fn array<'a>(cursor: &mut Cursor<'a>, depth: u32) -> Result<Value<'a>, Error> {
    let kind = cursor.u32("the type of an array")?;
    let count = cursor.u64("the length of an array")?;
    if let Some(size) = fixed_size(kind) {
        cursor.take(count.saturating_mul(size), "an array")?;
        return Ok(Value::Other);
    }
    // Strings and arrays take 8 bytes each at least: their own lengths.
    if count > (cursor.remaining() / 8) as u64 {
        return Err(cursor.malformed(format!("an array of {count} does not fit the file")));
    }
    if kind == 8 {
        let texts = (0..count)
            .map(|_| string(cursor, "a string of an array"))
            .collect::<Result<_, _>>()?;
        return Ok(Value::Texts(texts));
    }
    if depth == MAX_NESTING {
        return Err(cursor.malformed("arrays nested too deep"));
    }
    for _ in 0..count {
        value(cursor, kind, depth + 1)?;
    }
    Ok(Value::Other)
}

/// Bytes of a value of a GGUF type of fixed size.
fn fixed_size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
