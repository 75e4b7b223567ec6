//! llama.cpp's older importance matrix: a flat list of names and values.
//!
//! All little-endian: `i32` entries; per entry `i32` name length, the name, `i32` calls, `i32` values, that many `f32`;
//! then, in newer files, `i32` chunks, `i32` length and name of the text.
//!
//! The values are mean squares times the number of calls, a positive constant away from the sums of squares; only
//! ratios within one weight are used, so they are taken as they are. Experts follow one another, and the file does not
//! say where one ends ([`Norms::get`] knows it from `in_features`). An expert that saw no token is stored as a
//! constant. The chunk length is not stored, so the number of tokens is unknown.
//!
//! There is no magic number: [`starts`] asks for what a first entry must look like.

use std::collections::BTreeMap;
use std::path::Path;

use super::cursor::Cursor;
use super::entries::Norms;
use super::error::Error;
use super::provenance::{Format, Provenance};
use crate::untrusted::shown;

/// The longest name that is read, in bytes; llama.cpp's own limit is 64.
const MAX_NAME: u32 = 1024;
/// Bytes of an entry with an empty name and no values.
const SMALLEST_ENTRY: usize = 12;

/// Whether the bytes start like an importance matrix: a count that fits the file, then a printable name that fits too.
pub(super) fn starts(bytes: &[u8]) -> bool {
    let int =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)) };
    let (Some(entries), Some(length)) = (int(0), int(4)) else {
        return false;
    };
    let Some(name) = bytes.get(8..).and_then(|rest| rest.get(..length as usize)) else {
        return false;
    };
    (1..=MAX_NAME).contains(&length)
        && entries >= 1
        && entries as usize <= bytes.len() / SMALLEST_ENTRY
        && name.iter().all(u8::is_ascii_graphic)
}

/// Reads an importance matrix of the older form.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Norms, Error> {
    let source = Provenance {
        path: path.to_owned(),
        format: Format::Dat,
        tokens: None,
        metadata: BTreeMap::new(),
    };
    let mut norms = Norms::new(source);
    let mut cursor = Cursor::new(bytes, path, Format::Dat);

    let entries = cursor.length("the number of entries")?;
    for _ in 0..entries {
        let length = cursor.length("the length of a name")?;
        if length > MAX_NAME {
            return Err(cursor.malformed(format!(
                "a name of {length} bytes at byte {}",
                cursor.position()
            )));
        }
        let name = cursor.text(length.into(), "a name")?.to_owned();
        cursor.length("the number of calls")?;
        let count = cursor.length("the number of values")?;
        let values = cursor.f32s(count.into(), &format!("`{}`", shown(&name)))?;
        norms.put_new(name, None, values)?;
    }

    if cursor.remaining() > 0 {
        let chunks = cursor.length("the number of chunks")?;
        norms
            .source
            .metadata
            .insert("chunks".into(), chunks.to_string());
    }
    if cursor.remaining() > 0 {
        let length = cursor.length("the length of the text's name")?;
        let text = cursor.text(length.into(), "the text's name")?;
        norms.source.metadata.insert("text".into(), text.to_owned());
    }
    if cursor.remaining() > 0 {
        return Err(cursor.malformed(format!("{} bytes after the end", cursor.remaining())));
    }
    Ok(norms)
}

#[cfg(test)]
mod tests {
    use super::super::lookup::Lookup;
    use super::*;

    const DAT: &[u8] = include_bytes!("../../tests/fixtures/imatrix.dat");

    fn read(bytes: &[u8]) -> Result<Norms, Error> {
        Norms::parse(bytes, Path::new("imatrix.dat"))
    }

    fn one(name: &[u8], values: &[f32]) -> Vec<u8> {
        let mut out = 1i32.to_le_bytes().to_vec();
        out.extend((name.len() as i32).to_le_bytes());
        out.extend(name);
        out.extend(3i32.to_le_bytes());
        out.extend((values.len() as i32).to_le_bytes());
        out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        out
    }

    #[test]
    fn a_file_written_by_python_reads_back_with_its_provenance() {
        let norms = read(DAT).unwrap();
        assert_eq!(
            (norms.source.format, norms.source.tokens),
            (Format::Dat, None)
        );
        assert_eq!(norms.source.metadata["chunks"], "12");
        assert_eq!(norms.source.metadata["text"], "calibration.txt");
        let q = norms
            .get("model.layers.0.self_attn.q_proj.weight", None, 8)
            .unwrap();
        assert_eq!(
            q,
            Lookup::Measured(&[0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0])
        );
    }

    #[test]
    fn experts_that_lie_end_to_end_are_told_apart_and_a_constant_one_is_unseen() {
        let norms = read(DAT).unwrap();
        let w1 = |e: usize| {
            let name = format!("model.layers.1.block_sparse_moe.experts.{e}.w1.weight");
            norms
                .get(&name, None, 8)
                .map(|l| l.measured().map(<[f32]>::to_vec))
        };
        assert_eq!(w1(0).unwrap().unwrap()[..3], [0.0, 1.0, 2.0]);
        assert_eq!(w1(1).unwrap(), None);
        assert_eq!(w1(2).unwrap().unwrap()[..3], [16.0, 17.0, 18.0]);
        assert!(matches!(w1(3), Err(Error::Experts { found: 3, .. })));
        let unseen = norms
            .get(
                "model.layers.1.block_sparse_moe.experts.1.w1.weight",
                None,
                8,
            )
            .unwrap();
        assert_eq!(unseen, Lookup::Unseen);
    }

    #[test]
    fn a_file_without_the_trailer_is_whole() {
        assert!(
            read(&one(b"blk.0.attn_q.weight", &[1.0, 2.0]))
                .unwrap()
                .source
                .metadata
                .is_empty()
        );
    }

    #[test]
    fn damage_is_named() {
        assert!(matches!(
            read(&one(b"blk.0.attn_q.weight", &[1.0, f32::NAN])),
            Err(Error::Value { column: 1, .. })
        ));
        assert!(matches!(
            read(&one(b"blk.0.attn_q.weight", &[-1.0])),
            Err(Error::Value { column: 0, .. })
        ));
        let mut twice = one(b"a", &[1.0]);
        let entry = twice[4..].to_vec();
        twice[0] = 2;
        twice.extend(entry);
        assert!(read(&twice).unwrap_err().to_string().contains("twice"));
        let mut long = one(b"a", &[1.0]);
        long.extend([0; 9]);
        assert!(matches!(read(&long), Err(Error::Malformed { .. })));
    }

    #[test]
    fn no_cut_and_no_flipped_bit_makes_the_reader_panic() {
        // Without the trailer, and without its second half, it is an older file.
        super::super::tests::survives_damage(DAT, 2);
    }
}
