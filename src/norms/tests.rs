//! Looking norms up, and what no reader of norms may do.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::untrusted::tests::{HOSTILE, is_fit_for_a_terminal};

/// Cuts a file at every length, of which `harmless` leave a whole file, and flips bits all over it: no reader panics.
pub(super) fn survives_damage(whole: &[u8], harmless: usize) {
    let read = |bytes: &[u8]| Norms::parse(bytes, Path::new("damaged"));
    read(whole).unwrap();
    let unnoticed = (0..whole.len())
        .filter(|n| read(&whole[..*n]).is_ok())
        .count();
    assert_eq!(
        unnoticed,
        harmless,
        "cuts that went unnoticed, of {}",
        whole.len()
    );
    // xorshift: any spread will do, the same one every time.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut refused = 0;
    for round in 0..20_000 {
        let mut bytes = whole.to_vec();
        for _ in 0..=round % 3 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = (state >> 8) as usize % bytes.len();
            bytes[at] = if state & 1 == 0 {
                bytes[at] ^ (1 << ((state >> 1) & 7))
            } else {
                (state >> 40) as u8
            };
        }
        refused += usize::from(read(&bytes).is_err());
    }
    // Else the damage does not reach what is checked.
    assert!(refused > 1000, "{refused} of 20000 were refused");
}

fn source(format: Format) -> Provenance {
    Provenance {
        path: "some.norms".into(),
        format,
        tokens: None,
        metadata: BTreeMap::new(),
    }
}

#[test]
fn norms_are_found_under_the_weights_own_name() {
    let mut norms = Norms::new(source(Format::Measured));
    norms.insert("a.weight", vec![1.0, 2.0]).unwrap();
    assert_eq!(
        norms.get("a.weight", None, 2).unwrap(),
        Lookup::Measured(&[1.0, 2.0])
    );
    assert_eq!(norms.get("b.weight", None, 2).unwrap(), Lookup::Absent);
}

#[test]
fn another_models_norms_are_an_error_that_names_both_lengths() {
    let mut norms = Norms::new(source(Format::Safetensors));
    norms.insert("a.weight", vec![1.0, 2.0]).unwrap();
    let message = norms.get("a.weight", None, 4).unwrap_err().to_string();
    for part in [
        "some.norms",
        "`a.weight`",
        "2 column norms",
        "4 input features",
        "another model",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(matches!(
        norms.get("a.weight", None, 0),
        Err(Error::Length { .. })
    ));
}

#[test]
fn a_norm_that_no_sum_of_squares_can_be_is_refused_with_its_column() {
    let mut norms = Norms::new(source(Format::Measured));
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        let error = norms.insert("a\u{7}", vec![0.0, bad]).unwrap_err();
        assert!(
            matches!(&error, Error::Value { column: 1, tensor, .. } if tensor == "a\u{7}"),
            "{error}"
        );
    }
    norms.insert("a", vec![0.0, 1.0]).unwrap();
    assert!(norms.insert("a", vec![]).is_err());
    assert!(norms.insert_experts("a", vec![1.0], vec![]).is_err());
    assert!(
        norms
            .insert_experts("a", vec![1.0, 2.0, 3.0], vec![1, 1])
            .is_err()
    );
}

#[test]
fn each_expert_has_its_own_row_and_a_plain_vector_serves_all() {
    let mut norms = Norms::new(source(Format::Measured));
    norms
        .insert_experts("e", vec![1.0, 2.0, 3.0, 4.0], vec![1, 1])
        .unwrap();
    norms.insert("v", vec![5.0, 6.0]).unwrap();
    assert_eq!(
        norms.get("e", Some(1), 2).unwrap().measured(),
        Some(&[3.0, 4.0][..])
    );
    assert_eq!(
        norms.get("v", Some(7), 2).unwrap().measured(),
        Some(&[5.0, 6.0][..])
    );
    assert!(matches!(
        norms.get("e", Some(2), 2),
        Err(Error::Experts {
            found: 2,
            wanted: Some(2),
            ..
        })
    ));
    assert!(matches!(
        norms.get("e", None, 2),
        Err(Error::Experts { wanted: None, .. })
    ));
    assert!(matches!(
        norms.get("e", Some(0), 4),
        Err(Error::Length { found: 2, .. })
    ));
    assert!(matches!(
        norms.get("v", Some(0), 1),
        Err(Error::Length { .. })
    ));
}

#[test]
fn an_expert_no_token_reached_is_unseen_and_not_a_vector_of_zeros() {
    let mut norms = Norms::new(source(Format::Safetensors));
    norms
        .insert_experts("e", vec![0.0, 0.0, 3.0, 3.0], vec![0, 1])
        .unwrap();
    assert_eq!(norms.get("e", Some(0), 2).unwrap(), Lookup::Unseen);
    // A constant is a measurement in our own files, where nothing is made up.
    assert_eq!(
        norms.get("e", Some(1), 2).unwrap(),
        Lookup::Measured(&[3.0, 3.0])
    );
}

#[test]
fn what_is_no_file_of_norms_is_told_so() {
    for bytes in [
        &b""[..],
        b"PK\x03\x04 a zip archive",
        b"hello, world, this is a text",
        &[0; 64],
    ] {
        let error = Norms::parse(bytes, Path::new("x")).unwrap_err();
        assert!(matches!(error, Error::NotNorms { .. }), "{error}");
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(Norms::read(here).is_err());
    assert!(matches!(
        Norms::read(&here.join("no such file")),
        Err(Error::Io { .. })
    ));
}

#[test]
fn no_error_prints_a_name_raw() {
    let (path, name) = (|| HOSTILE.into(), || HOSTILE.to_owned());
    let malformed = {
        let mut norms = Norms::new(source(Format::Safetensors));
        norms.insert(HOSTILE, vec![]).unwrap_err()
    };
    let errors = [
        malformed,
        Error::Io {
            path: path(),
            source: std::io::ErrorKind::NotFound.into(),
        },
        Error::TooLarge {
            path: path(),
            bytes: 2,
            limit: 1,
        },
        Error::not_norms(Path::new(HOSTILE), "it is empty"),
        Error::malformed(Path::new(HOSTILE), Format::Dat, "cut short"),
        Error::Value {
            path: path(),
            tensor: name(),
            column: 0,
            value: -1.0,
        },
        Error::Length {
            path: path(),
            tensor: name(),
            weight: name(),
            found: 1,
            wanted: 2,
        },
        Error::Experts {
            path: path(),
            tensor: name(),
            weight: name(),
            found: 1,
            wanted: None,
        },
    ];
    for error in errors {
        is_fit_for_a_terminal(&error.to_string());
    }
}
