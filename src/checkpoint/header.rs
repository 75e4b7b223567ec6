//! The header of one safetensors file, read and checked without touching the data.
//!
//! A file is a little-endian u64 `N`, `N` bytes of JSON that may be padded with white space, and the
//! data. The JSON gives each tensor a dtype, a shape and a range of the data. A [`Header`] exists only if all of it is
//! consistent: no key twice, known dtypes, shapes that fill their ranges exactly, ranges that follow one another
//! without hole or overlap from the first byte of the data to the last byte of the file. So a tensor's range can be
//! used without further checks.
//!
//! The exact bytes are kept ([`Header::raw`]), because pruning changes no dtype, shape or offset: they are written to
//! the output as they came, in whatever order and spacing.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::json;

use super::json::{UniqueAnything, UniqueMap, twice};
use crate::dtype::StoredDtype;
use crate::untrusted::shown;

/// The longest JSON the format allows, in bytes.
pub const MAX_JSON: u64 = 100_000_000;

/// The most dimensions a tensor may have; PyTorch and NumPy stop at 64 too.
pub const MAX_RANK: usize = 64;

/// The key of the header's own strings, which is not a tensor's name.
const METADATA: &str = "__metadata__";

/// Bytes of the length `N` before the JSON.
pub(crate) const PREFIX: usize = 8;

/// What one safetensors file holds: its exact header bytes, and every tensor's place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    raw: Vec<u8>,
    tensors: Vec<Arc<Tensor>>,
    metadata: BTreeMap<String, String>,
}

/// One tensor of a safetensors file: its name, dtype and shape, and which bytes of the file it fills.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tensor {
    /// Its name, as the file gives it: escape it before printing.
    pub name: String,
    /// How its elements are stored.
    pub dtype: StoredDtype,
    /// Elements along each dimension, outermost first (row-major); empty for a scalar.
    pub shape: Vec<usize>,
    /// Its first byte, from the start of the file.
    pub offset: u64,
    /// Its length in bytes; exactly what dtype and shape need.
    pub len: u64,
}

/// The rule of the format that a header breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file is shorter than the eight bytes of the header's length.
    #[error("{len} bytes are too few for a safetensors header")]
    TooShort {
        /// Length of the file in bytes.
        len: u64,
    },
    /// The header claims to be longer than the format allows.
    #[error("the header claims {claimed} bytes, the format allows {MAX_JSON}")]
    TooLong {
        /// The length that the header claims, in bytes.
        claimed: u64,
    },
    /// The header claims to be longer than the file.
    #[error("the header claims {claimed} bytes, but the file has only {len} (cut short?)")]
    LongerThanFile {
        /// The length that the header claims, in bytes.
        claimed: u64,
        /// Length of the file in bytes.
        len: u64,
    },
    /// The JSON does not start with `{`.
    #[error("the header does not start with `{{`")]
    NotAnObject,
    /// The header is not UTF-8.
    #[error("the header is not UTF-8 (byte {at})")]
    NotUtf8 {
        /// The first byte that is not UTF-8, from the start of the JSON.
        at: usize,
    },
    /// The header is not JSON of the right form, or has a key twice.
    #[error("the header's JSON: {0}")]
    Json(
        /// What the parser says, fit for a terminal.
        String,
    ),
    /// A tensor has a dtype that the format does not know.
    #[error("tensor `{}` has the unknown dtype `{}`", shown(tensor), shown(dtype))]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// The name that the header gives as its dtype.
        dtype: String,
    },
    /// A tensor has more than [`MAX_RANK`] dimensions.
    #[error(
        "tensor `{}` has {rank} dimensions, more than {MAX_RANK}",
        shown(tensor)
    )]
    TooManyDimensions {
        /// The tensor.
        tensor: String,
        /// How many dimensions it has.
        rank: usize,
    },
    /// The size of a tensor does not fit 64 bits, or is not a whole number of bytes.
    #[error(
        "tensor `{}` has an impossible size: shape {shape:?} of {dtype}",
        shown(tensor)
    )]
    ImpossibleSize {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its dtype.
        dtype: StoredDtype,
    },
    /// Dtype and shape need more or fewer bytes than the tensor's range has.
    #[error(
        "tensor `{}` needs {needed} bytes but its data_offsets are {begin} to {end}",
        shown(tensor)
    )]
    WrongLength {
        /// The tensor.
        tensor: String,
        /// What dtype and shape need, in bytes.
        needed: u64,
        /// Start of its range in the data.
        begin: u64,
        /// End of its range in the data.
        end: u64,
    },
    /// A tensor does not start where the one before it ends: the ranges leave a hole or overlap.
    #[error(
        "tensor `{}` starts at byte {begin} of the data, but the tensor before it ends at {expected}",
        shown(tensor)
    )]
    NotContiguous {
        /// The tensor.
        tensor: String,
        /// Where it starts in the data.
        begin: u64,
        /// Where it should start: at the end of the tensor before it.
        expected: u64,
    },
    /// The tensors end before or after the file does.
    #[error(
        "the tensors take {needed} bytes, but {found} bytes of data follow the header (cut short?)"
    )]
    WrongDataLength {
        /// Bytes of all tensors together.
        needed: u64,
        /// Bytes that follow the header in the file.
        found: u64,
    },
}

/// A tensor that is to be laid out in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub dtype: StoredDtype,
    /// Elements along each dimension, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of this name, dtype and shape.
    #[must_use]
    pub fn new(name: impl Into<String>, dtype: StoredDtype, shape: Vec<usize>) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape,
        }
    }
}

impl Header {
    /// Lays tensors out one behind the other, in the order given, and writes the header that says so.
    ///
    /// The metadata come first, in the order of their keys, then the tensors; spaces follow up to a multiple of eight
    /// bytes, so that the data are aligned in a mapped file.
    ///
    /// # Errors
    /// [`HeaderError::ImpossibleSize`] and [`HeaderError::TooManyDimensions`] for a tensor that cannot be stored,
    /// [`HeaderError::Json`] for a name that occurs twice or is `__metadata__`, [`HeaderError::TooLong`].
    pub fn new(
        tensors: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, HeaderError> {
        let mut entries = Vec::with_capacity(tensors.len() + 1);
        if !metadata.is_empty() {
            entries.push(format!("\"{METADATA}\":{}", json!(metadata)));
        }
        let mut end = 0_u64;
        for TensorSpec { name, dtype, shape } in tensors {
            if name == METADATA {
                return Err(HeaderError::Json(format!(
                    "no tensor can be called `{METADATA}`"
                )));
            }
            let begin = end;
            let len = dtype.bytes_of(shape);
            end = len.and_then(|len| begin.checked_add(len)).ok_or_else(|| {
                HeaderError::ImpossibleSize {
                    tensor: name.clone(),
                    shape: shape.clone(),
                    dtype: *dtype,
                }
            })?;
            entries.push(format!(
                r#"{}:{{"dtype":"{dtype}","shape":{},"data_offsets":[{begin},{end}]}}"#,
                json!(name),
                json!(shape),
            ));
        }
        let mut json = format!("{{{}}}", entries.join(",")).into_bytes();
        json.resize(json.len().next_multiple_of(PREFIX), b' ');
        let mut raw = (json.len() as u64).to_le_bytes().to_vec();
        raw.append(&mut json);
        let file_len = (raw.len() as u64).saturating_add(end);
        Self::parse(raw, file_len)
    }

    /// The length of the whole file in bytes.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        // Tensors follow one another without holes, the last one ends the file.
        self.tensors
            .last()
            .map_or(self.data_start(), |tensor| tensor.offset + tensor.len)
    }

    /// Checks the first `8 + N` bytes of a file of `file_len` bytes.
    ///
    /// # Errors
    /// The rule that is broken. Fewer bytes in `raw` count as a file cut short; what follows them is ignored.
    pub fn parse(mut raw: Vec<u8>, file_len: u64) -> Result<Self, HeaderError> {
        let len = raw.len() as u64;
        let Some(prefix) = raw.first_chunk::<PREFIX>() else {
            return Err(HeaderError::TooShort { len });
        };
        let json_len = json_len(*prefix, file_len)?;
        if raw.len() - PREFIX < json_len {
            return Err(HeaderError::LongerThanFile {
                claimed: json_len as u64,
                len,
            });
        }
        raw.truncate(PREFIX + json_len);
        let json = &raw[PREFIX..];
        // The format has it there at once; the library that everybody reads with also takes white space before it.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(HeaderError::NotAnObject);
        }
        let text = std::str::from_utf8(json).map_err(|e| HeaderError::NotUtf8 {
            at: e.valid_up_to(),
        })?;
        // The parser accepts white space behind the object, and nothing else.
        let entries: Entries = serde_json::from_str(text)
            .map_err(|e| HeaderError::Json(shown(&e.to_string()).to_string()))?;

        let tensors = place(entries.tensors, raw.len() as u64, file_len)?;
        Ok(Self {
            raw,
            tensors: tensors.into_iter().map(Arc::new).collect(),
            metadata: entries.metadata,
        })
    }

    /// The first `8 + N` bytes of the file, verbatim.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The tensors in the order of their data; those without data come before their neighbour.
    #[must_use]
    pub fn tensors(&self) -> &[Arc<Tensor>] {
        &self.tensors
    }

    /// The `__metadata__` of the file; empty where there is none.
    #[must_use]
    pub const fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Where the data starts, in bytes from the start of the file.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.raw.len() as u64
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Arc<Tensor>> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// The length of the JSON that the first eight bytes claim, if a file of `file_len` bytes can hold it.
pub(crate) fn json_len(prefix: [u8; PREFIX], file_len: u64) -> Result<usize, HeaderError> {
    let claimed = u64::from_le_bytes(prefix);
    if claimed > MAX_JSON {
        return Err(HeaderError::TooLong { claimed });
    }
    if claimed > file_len.saturating_sub(PREFIX as u64) {
        return Err(HeaderError::LongerThanFile {
            claimed,
            len: file_len,
        });
    }
    usize::try_from(claimed).map_err(|_| HeaderError::TooLong { claimed })
}

/// Checks sizes and ranges, and gives every tensor its place in the file.
fn place(
    mut entries: Vec<(String, HeaderEntry)>,
    data_start: u64,
    file_len: u64,
) -> Result<Vec<Tensor>, HeaderError> {
    // By end as well, so that a tensor without data comes before the one that starts at the same byte.
    entries.sort_by_key(|(_, entry)| entry.data_offsets);

    let mut tensors = Vec::with_capacity(entries.len());
    let mut expected = 0;
    for (
        name,
        HeaderEntry {
            dtype,
            shape,
            data_offsets: (begin, end),
        },
    ) in entries
    {
        let Some(dtype) = StoredDtype::by_name(&dtype) else {
            return Err(HeaderError::UnknownDtype {
                tensor: name,
                dtype,
            });
        };
        if shape.len() > MAX_RANK {
            return Err(HeaderError::TooManyDimensions {
                tensor: name,
                rank: shape.len(),
            });
        }
        let Some(needed) = dtype.bytes_of(&shape) else {
            return Err(HeaderError::ImpossibleSize {
                tensor: name,
                shape,
                dtype,
            });
        };
        if end.checked_sub(begin) != Some(needed) {
            return Err(HeaderError::WrongLength {
                tensor: name,
                needed,
                begin,
                end,
            });
        }
        if begin != expected {
            return Err(HeaderError::NotContiguous {
                tensor: name,
                begin,
                expected,
            });
        }
        expected = end;
        // A begin past the file's end may not overflow here; the sum of all is compared with the file below.
        let Some(offset) = data_start.checked_add(begin) else {
            return Err(HeaderError::ImpossibleSize {
                tensor: name,
                shape,
                dtype,
            });
        };
        tensors.push(Tensor {
            name,
            dtype,
            shape,
            offset,
            len: needed,
        });
    }

    let found = file_len.saturating_sub(data_start);
    if expected != found {
        return Err(HeaderError::WrongDataLength {
            needed: expected,
            found,
        });
    }
    Ok(tensors)
}

/// The header's JSON, before its numbers are checked.
struct Entries {
    tensors: Vec<(String, HeaderEntry)>,
    metadata: BTreeMap<String, String>,
}

/// What the JSON says of one tensor.
struct HeaderEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Entries, A::Error> {
                let mut seen = HashSet::new();
                let mut entries = Entries {
                    tensors: Vec::new(),
                    metadata: BTreeMap::new(),
                };
                while let Some(key) = access.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        return Err(twice(&key));
                    }
                    if key == METADATA {
                        // `null` is none, as for the library that everybody reads with.
                        let metadata = access.next_value::<Option<UniqueMap<String>>>()?;
                        entries.metadata = metadata.map(|map| map.0).unwrap_or_default();
                    } else {
                        let entry = access.next_value()?;
                        entries.tensors.push((key, entry));
                    }
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

impl<'de> Deserialize<'de> for HeaderEntry {
    // Written by hand, because a derived one accepts an array as an object, and unknown keys twice.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = HeaderEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<HeaderEntry, A::Error> {
                let mut seen = HashSet::new();
                let (mut dtype, mut shape, mut data_offsets) = (None, None, None);
                while let Some(key) = access.next_key::<String>()? {
                    match key.as_str() {
                        "dtype" if dtype.is_none() => dtype = Some(access.next_value()?),
                        "shape" if shape.is_none() => shape = Some(access.next_value()?),
                        "data_offsets" if data_offsets.is_none() => {
                            data_offsets = Some(access.next_value()?);
                        }
                        "dtype" | "shape" | "data_offsets" => return Err(twice(&key)),
                        // A later version of the format may add keys: they are carried along in the raw bytes.
                        _ => {
                            access.next_value::<UniqueAnything>()?;
                            if let Some(key) = seen.replace(key) {
                                return Err(twice(&key));
                            }
                        }
                    }
                }
                Ok(HeaderEntry {
                    dtype: dtype.ok_or_else(|| A::Error::missing_field("dtype"))?,
                    shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
                    data_offsets: data_offsets
                        .ok_or_else(|| A::Error::missing_field("data_offsets"))?,
                })
            }
        }

        deserializer.deserialize_map(EntryVisitor)
    }
}

#[cfg(test)]
mod tests;
