//! What a header may say, and what it may not.

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
    assert_eq!(header.raw(), raw(TWO));
    assert_eq!(header.metadata()["format"], "pt");
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
    let expected = expected.map(Arc::new);
    assert_eq!(header.tensors(), expected);
    assert_eq!(header.tensor("b"), Some(&expected[1]));
    assert_eq!(header.tensor("c"), None);
}

#[test]
fn trailing_spaces_are_allowed_and_kept() {
    let header = parse(&format!("{TWO}     "), 16).unwrap();
    assert_eq!(header.data_start(), 8 + TWO.len() as u64 + 5);
    assert_eq!(header.tensors()[0].offset, header.data_start());
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
    let names: Vec<_> = header.tensors().iter().map(|t| t.name.as_str()).collect();
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
    for json in [String::new(), "[]".into(), format!("\u{feff}{TWO}")] {
        assert_eq!(parse(&json, 16), Err(HeaderError::NotAnObject), "{json}");
    }
}

#[test]
fn what_the_safetensors_library_reads_is_read() {
    for json in [
        format!(" \n{TWO}\t "),
        TWO.replace(r#"{"format":"pt"}"#, "null"),
        TWO.replace(r#""pt""#, r#""np""#),
    ] {
        let header = parse(&json, 16).unwrap();
        let raw = [header.raw(), &[0; 16]].concat();
        let theirs = safetensors::SafeTensors::deserialize(&raw).unwrap();
        assert_eq!(theirs.len(), header.tensors().len(), "{json}");
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
    let with =
        |more: &str| format!(r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]{more}}}}}"#);
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
        for tensor in header.tensors() {
            assert_eq!(tensor.offset, at);
            at += tensor.len;
        }
        assert_eq!(at, file_len);
    }
    // Renamed tensors and changed metadata stay good: the checks above did run.
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn a_header_that_was_laid_out_reads_as_it_was_meant() {
    let tensors = [
        TensorSpec::new("w", StoredDtype::Bf16, vec![2, 3]),
        TensorSpec::new("nothing", StoredDtype::F32, vec![0]),
        TensorSpec::new("a\u{1b}\"b", StoredDtype::F4, vec![4]),
        TensorSpec::new("scalar", StoredDtype::F64, vec![]),
    ];
    let metadata = BTreeMap::from([("k".to_owned(), "\"v\"".to_owned())]);
    let header = Header::new(&tensors, &metadata).unwrap();
    assert_eq!(*header.metadata(), metadata);
    assert!(header.raw().len().is_multiple_of(8));
    let start = header.data_start();
    let places: Vec<_> = header
        .tensors()
        .iter()
        .map(|t| (t.name.as_str(), t.offset - start, t.len))
        .collect();
    assert_eq!(
        places,
        [
            ("w", 0, 12),
            ("nothing", 12, 0),
            ("a\u{1b}\"b", 12, 2),
            ("scalar", 14, 8)
        ]
    );
    assert_eq!(header.file_len(), start + 22);
}

#[test]
fn what_no_header_can_say_is_not_laid_out() {
    let lay_out = |tensors: &[TensorSpec]| Header::new(tensors, &BTreeMap::new()).unwrap_err();
    let tensor = |name: &str, shape: &[usize]| TensorSpec::new(name, StoredDtype::F4, shape.into());
    assert!(matches!(
        lay_out(&[tensor("a", &[2]), tensor("a", &[2])]),
        HeaderError::Json(_)
    ));
    assert!(matches!(
        lay_out(&[tensor("__metadata__", &[2])]),
        HeaderError::Json(_)
    ));
    for shape in [&[3][..], &[usize::MAX, usize::MAX]] {
        assert!(matches!(
            lay_out(&[tensor("a", shape)]),
            HeaderError::ImpossibleSize { .. }
        ));
    }
    assert!(matches!(
        lay_out(&[tensor("a", &[2; MAX_RANK + 1])]),
        HeaderError::ImpossibleSize { .. } | HeaderError::TooManyDimensions { .. }
    ));
}
