//! The header of one safetensors file, read and checked without touching the data.
//!
//! A file is a little-endian u64 `N`, `N` bytes of JSON that start with `{` and may be padded with spaces, and the
//! data. The JSON gives each tensor a dtype, a shape and a range of the data. A [`Header`] exists only if all of it
//! holds together: no key twice, known dtypes, shapes that fill their ranges exactly, ranges that follow one another
//! without hole or overlap from the first byte of the data to the last byte of the file. Whoever holds one may index
//! the file by it without further checks.
//!
//! The exact bytes are kept ([`Header::raw`]), because pruning changes no dtype, shape or offset: they are written to
//! the output as they came, in whatever order and spacing.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::json::{UniqueAnything, UniqueMap, twice};
use crate::dtype::StoredDtype;
use crate::untrusted::shown;

/// The longest JSON the format allows, in bytes.
pub const MAX_JSON: u64 = 100_000_000;

/// The most dimensions a tensor may have; PyTorch and NumPy stop at 64 too.
pub const MAX_RANK: usize = 64;

/// Bytes of the length `N` before the JSON.
pub(super) const PREFIX: usize = 8;

/// What one safetensors file holds: its exact header bytes, and every tensor's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first `8 + N` bytes of the file, verbatim.
    pub raw: Vec<u8>,
    /// The tensors in the order of their data; those without data come before their neighbour.
    pub tensors: Vec<Tensor>,
    /// The `__metadata__` of the file; empty where there is none.
    pub metadata: BTreeMap<String, String>,
}

/// One tensor of a safetensors file: what it is called, and which bytes of the file it fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, as the file gives it: not escaped, not fit for a terminal.
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
    /// The header says to be longer than the format allows.
    #[error("the header claims {claimed} bytes, the format allows {MAX_JSON}")]
    TooLong {
        /// What it says, in bytes.
        claimed: u64,
    },
    /// The header says to be longer than the file.
    #[error("the header claims {claimed} bytes, but the file has only {len} (cut short?)")]
    LongerThanFile {
        /// What it says, in bytes.
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
        /// First byte that is not, from the start of the JSON.
        at: usize,
    },
    /// The header is no JSON of the right form, or has a key twice.
    #[error("the header's JSON: {0}")]
    Json(
        /// The parser's words, escaped.
        String,
    ),
    /// A tensor has a dtype that is not in the format.
    #[error("tensor `{}` has the unknown dtype `{}`", shown(tensor), shown(dtype))]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// What it calls its dtype.
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
        /// Its dimensions.
        rank: usize,
    },
    /// The size of a tensor does not fit a machine word, or is no whole number of bytes.
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
        /// Where it should.
        expected: u64,
    },
    /// The tensors end before or after the file does.
    #[error(
        "the tensors take {needed} bytes, but {found} bytes of data follow the header (cut short?)"
    )]
    WrongDataLength {
        /// What the tensors take, in bytes.
        needed: u64,
        /// What follows the header, in bytes.
        found: u64,
    },
}

impl Header {
    /// Checks the first `8 + N` bytes of a file of `file_len` bytes.
    ///
    /// # Errors
    /// The rule that is broken. Fewer bytes in `raw` count as a file cut short, more are left aside.
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
        if json.first() != Some(&b'{') {
            return Err(HeaderError::NotAnObject);
        }
        let text = std::str::from_utf8(json).map_err(|e| HeaderError::NotUtf8 {
            at: e.valid_up_to(),
        })?;
        // The parser lets spaces follow and nothing else that could be seen.
        let entries: Entries = serde_json::from_str(text)
            .map_err(|e| HeaderError::Json(shown(&e.to_string()).to_string()))?;

        let tensors = place(entries.tensors, raw.len() as u64, file_len)?;
        Ok(Self {
            raw,
            tensors,
            metadata: entries.metadata,
        })
    }

    /// Where the data starts, in bytes from the start of the file.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.raw.len() as u64
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// The length of the JSON that the first eight bytes claim, if a file of `file_len` bytes can hold it.
pub(super) fn json_len(prefix: [u8; PREFIX], file_len: u64) -> Result<usize, HeaderError> {
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
    mut entries: Vec<(String, Entry)>,
    data_start: u64,
    file_len: u64,
) -> Result<Vec<Tensor>, HeaderError> {
    // By end as well, so that a tensor without data comes before the one that starts at the same byte.
    entries.sort_by_key(|(_, entry)| entry.data_offsets);

    let mut tensors = Vec::with_capacity(entries.len());
    let mut expected = 0;
    for (
        name,
        Entry {
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

/// The header's JSON as it stands, before its numbers are believed.
struct Entries {
    tensors: Vec<(String, Entry)>,
    metadata: BTreeMap<String, String>,
}

/// What the JSON says of one tensor.
struct Entry {
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
                    if key == "__metadata__" {
                        entries.metadata = access.next_value::<UniqueMap<String>>()?.0;
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

impl<'de> Deserialize<'de> for Entry {
    // By hand: a derived one takes an array for an object, and lets unknown keys occur twice.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Entry, A::Error> {
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
                Ok(Entry {
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
mod tests {
    use super::*;

    /// The first bytes of a file with this JSON.
    fn raw(json: &str) -> Vec<u8> {
        let mut raw = (json.len() as u64).to_le_bytes().to_vec();
        raw.extend_from_slice(json.as_bytes());
        raw
    }

    fn parse(json: &str, data: u64) -> Result<Header, HeaderError> {
        let raw = raw(json);
        let len = raw.len() as u64 + data;
        Header::parse(raw, len)
    }

    fn json_error(json: &str, data: u64) -> String {
        match parse(json, data) {
            Err(HeaderError::Json(message)) => message,
            other => panic!("expected a JSON error, got {other:?}"),
        }
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;

    #[test]
    fn a_good_header_gives_every_tensor_its_place() {
        let header = parse(TWO, 16).unwrap();
        let start = header.data_start();
        assert_eq!(start, 8 + TWO.len() as u64);
        assert_eq!(header.raw, raw(TWO));
        assert_eq!(header.metadata["format"], "pt");
        let expected = [
            Tensor {
                name: "a".into(),
                dtype: StoredDtype::F32,
                shape: vec![1],
                offset: start,
                len: 4,
            },
            Tensor {
                name: "b".into(),
                dtype: StoredDtype::Bf16,
                shape: vec![2, 3],
                offset: start + 4,
                len: 12,
            },
        ];
        assert_eq!(header.tensors, expected);
        assert_eq!(header.tensor("b"), Some(&expected[1]));
        assert_eq!(header.tensor("c"), None);
    }

    #[test]
    fn trailing_spaces_are_allowed_and_kept() {
        let header = parse(&format!("{TWO}     "), 16).unwrap();
        assert_eq!(header.data_start(), 8 + TWO.len() as u64 + 5);
        assert_eq!(header.tensors[0].offset, header.data_start());
        json_error(&format!("{TWO} x"), 16);
        json_error(&format!("{TWO}{TWO}"), 16);
        json_error(&format!("{TWO}\0"), 16);
    }

    #[test]
    fn a_header_without_tensors_is_good_if_nothing_follows() {
        assert!(parse("{}", 0).unwrap().tensors.is_empty());
        assert_eq!(
            parse("{}", 1),
            Err(HeaderError::WrongDataLength {
                needed: 0,
                found: 1
            })
        );
    }

    #[test]
    fn scalars_and_tensors_without_data_are_good() {
        let json = r#"{"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]},"z":{"dtype":"F32","shape":[0,9],"data_offsets":[0,0]},"e":{"dtype":"F32","shape":[0],"data_offsets":[8,8]}}"#;
        let header = parse(json, 8).unwrap();
        let names: Vec<_> = header.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["z", "s", "e"]);
    }

    #[test]
    fn every_dtype_of_the_format_is_known() {
        for name in [
            "BOOL",
            "F4",
            "F6_E2M3",
            "F6_E3M2",
            "U8",
            "I8",
            "F8_E5M2",
            "F8_E4M3",
            "F8_E8M0",
            "F8_E4M3FNUZ",
            "F8_E5M2FNUZ",
            "I16",
            "U16",
            "F16",
            "BF16",
            "I32",
            "U32",
            "F32",
            "C64",
            "F64",
            "I64",
            "U64",
        ] {
            assert_eq!(StoredDtype::by_name(name).unwrap().to_string(), name);
        }
        assert_eq!(StoredDtype::by_name("f32"), None);
    }

    #[test]
    fn a_file_shorter_than_its_length_field_is_refused() {
        for len in 0..8 {
            assert_eq!(
                Header::parse(vec![0; len], len as u64),
                Err(HeaderError::TooShort { len: len as u64 })
            );
        }
    }

    #[test]
    fn a_header_longer_than_the_file_is_refused() {
        let raw = raw(TWO);
        let claimed = TWO.len() as u64;
        let len = raw.len() as u64 - 1;
        assert_eq!(
            Header::parse(raw, len),
            Err(HeaderError::LongerThanFile { claimed, len })
        );
    }

    #[test]
    fn a_header_longer_than_the_format_allows_is_refused() {
        let at = |claimed: u64| Header::parse(claimed.to_le_bytes().to_vec(), u64::MAX);
        assert_eq!(
            at(MAX_JSON + 1),
            Err(HeaderError::TooLong {
                claimed: MAX_JSON + 1
            })
        );
        assert_eq!(
            at(u64::MAX),
            Err(HeaderError::TooLong { claimed: u64::MAX })
        );
        assert_eq!(
            at(MAX_JSON),
            Err(HeaderError::LongerThanFile {
                claimed: MAX_JSON,
                len: 8
            })
        );
    }

    #[test]
    fn a_header_that_does_not_start_with_a_brace_is_refused() {
        for json in [
            format!(" {TWO}"),
            String::new(),
            "[]".into(),
            format!("\u{feff}{TWO}"),
        ] {
            assert_eq!(parse(&json, 16), Err(HeaderError::NotAnObject), "{json}");
        }
    }

    #[test]
    fn a_header_that_is_not_utf8_is_refused() {
        let mut raw = raw(TWO);
        let at = TWO.find("\"b\"").unwrap() + 1;
        raw[8 + at] = 0xff;
        let len = raw.len() as u64 + 16;
        assert_eq!(Header::parse(raw, len), Err(HeaderError::NotUtf8 { at }));
    }

    #[test]
    fn a_tensor_that_occurs_twice_is_refused() {
        let json = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"A":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        assert!(parse(json, 2).is_ok());
        for again in ["\"a\"", "\"\\u0061\""] {
            let message = json_error(&json.replace("\"A\"", again), 2);
            assert!(message.starts_with("the key `a` occurs twice"), "{message}");
        }
    }

    #[test]
    fn a_key_that_occurs_twice_in_an_entry_is_refused() {
        let with = |more: &str| {
            format!(r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]{more}}}}}"#)
        };
        assert!(parse(&with(""), 1).is_ok());
        assert!(parse(&with(r#","x":1,"y":2"#), 1).is_ok());
        for (key, more) in [
            ("dtype", r#","dtype":"U8""#),
            ("shape", r#","shape":[1]"#),
            ("data_offsets", r#","data_offsets":[0,1]"#),
            ("x", r#","x":1,"x":1"#),
            ("y", r#","x":{"y":1,"y":1}"#),
        ] {
            let message = json_error(&with(more), 1);
            assert!(
                message.starts_with(&format!("the key `{key}` occurs twice")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_key_that_occurs_twice_in_the_metadata_is_refused() {
        assert!(parse(r#"{"__metadata__":{"a":"1","b":"1"}}"#, 0).is_ok());
        json_error(r#"{"__metadata__":{"a":"1","a":"1"}}"#, 0);
        json_error(r#"{"__metadata__":{},"__metadata__":{}}"#, 0);
    }

    #[test]
    fn metadata_that_is_not_text_is_refused() {
        for value in ["1", "null", "[\"a\"]", "{}", "true"] {
            json_error(&format!(r#"{{"__metadata__":{{"a":{value}}}}}"#), 0);
        }
        assert!(parse(r#"{"__metadata__":{"a":"1"}}"#, 0).is_ok());
    }

    #[test]
    fn entries_of_the_wrong_form_are_refused() {
        for entry in [
            r#"["U8",[1],[0,1]]"#,
            r#"{"dtype":"U8","shape":[1]}"#,
            r#"{"dtype":"U8","data_offsets":[0,1]}"#,
            r#"{"shape":[1],"data_offsets":[0,1]}"#,
            r#"{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}"#,
            r#"{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}"#,
            r#"{"dtype":"U8","shape":[1],"data_offsets":[0]}"#,
            r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}"#,
            r#"{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1]}"#,
            r#"{"dtype":8,"shape":[1],"data_offsets":[0,1]}"#,
            "null",
        ] {
            json_error(&format!(r#"{{"a":{entry}}}"#), 1);
        }
    }

    fn one(dtype: &str, shape: &str, begin: u64, end: u64) -> String {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}}}"#)
    }

    #[test]
    fn an_unknown_dtype_is_refused() {
        let error = parse(&one("F128\\u001b", "[1]", 0, 16), 16).unwrap_err();
        assert_eq!(
            error,
            HeaderError::UnknownDtype {
                tensor: "a".into(),
                dtype: "F128\u{1b}".into()
            }
        );
        assert!(!error.to_string().contains('\u{1b}'));
    }

    #[test]
    fn a_shape_that_does_not_fill_its_range_is_refused() {
        assert!(parse(&one("F16", "[2,2]", 0, 8), 8).is_ok());
        for (shape, begin, end) in [
            ("[2,2]", 0, 7),
            ("[2,2]", 0, 9),
            ("[2,2]", 8, 0),
            ("[]", 0, 8),
        ] {
            let error = parse(&one("F16", shape, begin, end), 8);
            assert!(
                matches!(error, Err(HeaderError::WrongLength { .. })),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_shape_whose_size_overflows_is_refused() {
        for shape in [
            "[4294967296,4294967296]",
            "[9223372036854775808,2]",
            "[18446744073709551615]",
        ] {
            let error = parse(&one("F32", shape, 0, 0), 0);
            assert!(
                matches!(error, Err(HeaderError::ImpossibleSize { .. })),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_size_that_is_no_whole_number_of_bytes_is_refused() {
        assert!(parse(&one("F4", "[4]", 0, 2), 2).is_ok());
        let error = parse(&one("F4", "[3]", 0, 2), 2);
        assert!(
            matches!(error, Err(HeaderError::ImpossibleSize { .. })),
            "{error:?}"
        );
    }

    #[test]
    fn more_dimensions_than_a_tensor_can_have_are_refused() {
        let shape = |rank: usize| format!("[{}]", vec!["1"; rank].join(","));
        assert!(parse(&one("U8", &shape(MAX_RANK), 0, 1), 1).is_ok());
        let error = parse(&one("U8", &shape(MAX_RANK + 1), 0, 1), 1);
        assert!(
            matches!(error, Err(HeaderError::TooManyDimensions { rank: 65, .. })),
            "{error:?}"
        );
    }

    fn pair(first: (u64, u64), second: (u64, u64)) -> String {
        let entry = |(begin, end): (u64, u64)| {
            let len = end - begin;
            format!(r#"{{"dtype":"U8","shape":[{len}],"data_offsets":[{begin},{end}]}}"#)
        };
        format!(r#"{{"a":{},"b":{}}}"#, entry(first), entry(second))
    }

    #[test]
    fn holes_and_overlaps_are_refused() {
        assert!(parse(&pair((0, 4), (4, 8)), 8).is_ok());
        for (first, second) in [
            ((0, 4), (5, 8)),
            ((0, 5), (4, 8)),
            ((1, 4), (4, 8)),
            ((0, 8), (0, 8)),
            ((0, 8), (2, 4)),
        ] {
            let error = parse(&pair(first, second), 8);
            assert!(
                matches!(error, Err(HeaderError::NotContiguous { .. })),
                "{error:?}"
            );
        }
    }

    #[test]
    fn data_that_end_before_or_after_the_file_are_refused() {
        for found in [7, 9, 0] {
            assert_eq!(
                parse(&pair((0, 4), (4, 8)), found),
                Err(HeaderError::WrongDataLength { needed: 8, found })
            );
        }
        let huge = u64::MAX / 8;
        let error = parse(&pair((0, huge), (huge, u64::MAX / 4)), 8);
        assert!(error.is_err(), "{error:?}");
    }

    #[test]
    fn a_header_cut_anywhere_is_refused_and_never_panics() {
        let whole = raw(TWO);
        for cut in 0..whole.len() {
            let file_len = whole.len() as u64 + 16;
            assert!(Header::parse(whole[..cut].to_vec(), cut as u64).is_err());
            assert!(Header::parse(whole[..cut].to_vec(), file_len).is_err());
            // The length field cut to match: what is left is broken JSON.
            if let Some(json) = whole[..cut].get(8..) {
                let mut shorter = (json.len() as u64).to_le_bytes().to_vec();
                shorter.extend_from_slice(json);
                assert!(Header::parse(shorter, file_len).is_err());
            }
        }
        assert!(Header::parse(whole.clone(), whole.len() as u64 + 16).is_ok());
    }

    #[test]
    fn random_bytes_in_a_header_never_panic_and_never_break_its_promises() {
        let whole = raw(&format!("{TWO}  "));
        let file_len = whole.len() as u64 + 16;
        // xorshift: the same mutations on every machine.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        // Bytes that JSON gives a meaning break deeper in than random ones.
        let telling = b"{}[]\",:0123456789-+.eE\\u \0\xff";
        let mut accepted = 0;
        for _ in 0..30_000 {
            let mut bytes = whole.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = if random(2) == 0 {
                    random(256) as u8
                } else {
                    telling[random(telling.len())]
                };
            }
            let Ok(header) = Header::parse(bytes, file_len) else {
                continue;
            };
            accepted += 1;
            let mut at = header.data_start();
            for tensor in &header.tensors {
                assert_eq!(tensor.offset, at);
                at += tensor.len;
            }
            assert_eq!(at, file_len);
        }
        // Renamed tensors and changed metadata stay good: the checks above did run.
        assert!(accepted > 100, "{accepted}");
    }
}
