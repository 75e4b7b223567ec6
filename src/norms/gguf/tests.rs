//! Importance matrices in GGUF: whole, unusual and damaged.

use super::super::lookup::Lookup;
use super::*;

const IMATRIX: &[u8] = include_bytes!("../../../tests/fixtures/imatrix.gguf");
const MODEL: &[u8] = include_bytes!("../../../tests/fixtures/model.gguf");

fn read(bytes: &[u8]) -> Result<Norms, Error> {
    Norms::parse(bytes, Path::new("imatrix.gguf"))
}

/// A GGUF file of the given parts, tensors as (name, dims, type, offset).
fn build(pairs: &[Vec<u8>], tensors: &[(&str, &[u64], u32, u64)], data: &[u8]) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    out.extend(pairs.concat());
    for (name, dims, kind, offset) in tensors {
        out.extend((name.len() as u64).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend((dims.len() as u32).to_le_bytes());
        out.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
        out.extend(kind.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    out
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn a_file_written_by_the_gguf_package_reads_back_with_its_provenance() {
    let norms = read(IMATRIX).unwrap();
    assert_eq!(
        (norms.source.format, norms.source.tokens),
        (Format::Gguf, Some(12 * 512))
    );
    assert_eq!(norms.source.metadata["text"], "calibration.txt, more.txt");
    for name in ["q_proj", "k_proj", "v_proj"] {
        let found = norms
            .get(&format!("model.layers.0.self_attn.{name}.weight"), None, 8)
            .unwrap();
        assert_eq!(
            found,
            Lookup::Measured(&[0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0]),
            "{name}"
        );
    }
    let absent = norms
        .get("model.layers.7.self_attn.q_proj.weight", None, 8)
        .unwrap();
    assert_eq!(absent, Lookup::Absent);
}

#[test]
fn experts_have_their_own_rows_and_a_count_of_zero_is_unseen() {
    let norms = read(IMATRIX).unwrap();
    let get = |name: &str, expert| norms.get(&format!("model.layers.1.{name}"), expert, 8);
    for (name, expert) in [
        ("block_sparse_moe.experts.2.w3.weight", None),
        ("mlp.experts.2.gate_proj.weight", None),
        ("mlp.experts.gate_up_proj", Some(2)),
    ] {
        assert_eq!(
            get(name, expert).unwrap().measured().unwrap()[..2],
            [16.0, 17.0],
            "{name}"
        );
    }
    assert_eq!(
        get("mlp.experts.1.up_proj.weight", None).unwrap(),
        Lookup::Unseen
    );
    assert!(matches!(
        get("mlp.experts.3.up_proj.weight", None),
        Err(Error::Experts { found: 3, .. })
    ));
    assert!(matches!(
        get("mlp.experts.gate_up_proj", None),
        Err(Error::Experts { found: 3, .. })
    ));
}

#[test]
fn norms_of_another_model_are_refused() {
    let error = read(IMATRIX)
        .unwrap()
        .get("model.layers.0.self_attn.q_proj.weight", None, 16)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Length {
                found: 8,
                wanted: 16,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_model_is_told_to_be_one() {
    let message = read(MODEL).unwrap_err().to_string();
    assert!(
        message.contains("GGUF model (llama)") && message.contains("importance"),
        "{message}"
    );
}

#[test]
fn a_norm_that_is_not_a_number_names_its_tensor() {
    for bad in [f32::NAN, f32::INFINITY, -2.0] {
        let bytes = build(&[], &[("a.in_sum2", &[2], 0, 0)], &floats(&[1.0, bad]));
        let norms = read(&bytes).unwrap();
        assert!(
            matches!(norms.get("a", None, 2), Err(Error::Value { column: 1, tensor, .. }) if tensor == "a")
        );
    }
}

#[test]
fn sums_over_no_tokens_are_refused() {
    let tensors: [(&str, &[u64], u32, u64); 2] =
        [("a.in_sum2", &[2, 2], 0, 0), ("a.counts", &[1, 2], 0, 16)];
    let with = |sums: [f32; 4]| {
        read(&build(
            &[],
            &tensors,
            &floats(&[&sums[..], &[5.0, 0.0]].concat()),
        ))
    };
    assert!(with([1.0, 2.0, 0.0, 0.0]).is_ok());
    assert!(
        with([1.0, 2.0, 0.0, 3.0])
            .unwrap_err()
            .to_string()
            .contains("row 1")
    );
}

#[test]
fn one_place_cannot_be_claimed_by_many_tensors() {
    let tensors: [(&str, &[u64], u32, u64); 2] =
        [("a.in_sum2", &[2], 0, 0), ("b.in_sum2", &[2], 0, 0)];
    assert!(
        read(&build(&[], &tensors, &[0; 16])).is_ok(),
        "there is room for both"
    );
    assert!(
        read(&build(&[], &tensors, &[0; 8]))
            .unwrap_err()
            .to_string()
            .contains("overlaps")
    );
}

#[test]
fn sizes_that_overflow_or_leave_the_file_are_refused() {
    for dims in [
        &[u64::MAX, u64::MAX][..],
        &[u64::MAX / 2],
        &[1 << 62],
        &[3],
        &[0],
    ] {
        assert!(matches!(
            read(&build(&[], &[("a.in_sum2", dims, 0, 0)], &[0; 8])),
            Err(Error::Malformed { .. })
        ));
    }
    for offset in [4, u64::MAX] {
        assert!(read(&build(&[], &[("a.in_sum2", &[2], 0, offset)], &[0; 8])).is_err());
    }
    for (kind, dims) in [(1, &[2][..]), (0, &[1, 1, 2]), (0, &[1, 1, 1, 1, 2])] {
        assert!(read(&build(&[], &[("a.in_sum2", dims, kind, 0)], &[0; 8])).is_err());
    }
    assert!(read(&build(&[], &[("a.in_sum2", &[2], 0, 0)], &[0; 8])).is_ok());
}

#[test]
fn deep_arrays_and_strange_types_are_refused() {
    let pair = |kind: u32, rest: &[u8]| {
        [&1u64.to_le_bytes()[..], b"k", &kind.to_le_bytes(), rest].concat()
    };
    let nested = |depth: usize| {
        let one = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
        pair(
            9,
            &[
                one.repeat(depth),
                [&0u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat(),
            ]
            .concat(),
        )
    };
    let tensors: [(&str, &[u64], u32, u64); 1] = [("a.in_sum2", &[2], 0, 0)];
    let with = |pair: Vec<u8>| read(&build(&[pair], &tensors, &[0; 8]));
    assert!(with(nested(1)).is_ok());
    assert!(with(nested(50_000)).is_err());
    assert!(with(pair(13, &[0; 8])).is_err());
    assert!(
        with(pair(
            9,
            &[&8u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat()
        ))
        .is_err()
    );
}

#[test]
fn a_big_endian_file_is_named() {
    let message = read(b"GGUF\0\0\0\x03\0\0\0\0").unwrap_err().to_string();
    assert!(message.contains("big-endian"), "{message}");
}

#[test]
fn no_cut_and_no_flipped_bit_makes_the_reader_panic() {
    // The last 20 bytes are padding.
    super::super::tests::survives_damage(IMATRIX, 20);
}
