//! Between stored weights and the f32 that they are compensated in.

use half::{bf16, f16};

use crate::dtype::Dtype;

/// Stored weights as f32, exactly.
pub(crate) fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytemuck::pod_collect_to_vec(bytes),
        Dtype::Bf16 => halves(bytes, |bits| bf16::from_bits(bits).to_f32()),
        Dtype::F16 => halves(bytes, |bits| f16::from_bits(bits).to_f32()),
    }
}

fn halves(bytes: &[u8], decode: impl Fn(u16) -> f32) -> Vec<f32> {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs
        .iter()
        .map(|&pair| decode(u16::from_le_bytes(pair)))
        .collect()
}

/// Stores a row of compensated values, each rounded to the nearest, ties to even, if all of them are finite then; gives whether they
/// are. What is not zero does not become zero: it gets the smallest magnitude there is, so that the zeros of a row stay those
/// that were asked for.
pub(crate) fn round_row(dtype: Dtype, values: &[f32], bytes: &mut [u8]) -> bool {
    match dtype {
        Dtype::F32 => {
            let is_finite = values.iter().all(|value| value.is_finite());
            if is_finite {
                bytes.copy_from_slice(bytemuck::cast_slice(values));
            }
            is_finite
        }
        Dtype::Bf16 => store(values, bytes, bf16::INFINITY.to_bits(), |value| {
            bf16::from_f32(value).to_bits()
        }),
        Dtype::F16 => store(values, bytes, f16::INFINITY.to_bits(), |value| {
            f16::from_f32(value).to_bits()
        }),
    }
}

fn store(values: &[f32], bytes: &mut [u8], infinity: u16, encode: impl Fn(f32) -> u16) -> bool {
    const MAGNITUDE: u16 = 0x7fff;
    if values
        .iter()
        .any(|&value| encode(value) & MAGNITUDE >= infinity)
    {
        return false;
    }
    let (pairs, _) = bytes.as_chunks_mut::<2>();
    for (pair, &value) in pairs.iter_mut().zip(values) {
        let bits = encode(value);
        let is_lost = value != 0.0 && bits & MAGNITUDE == 0;
        *pair = (bits | u16::from(is_lost)).to_le_bytes();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_the_nearest_and_only_zero_is_zero() {
        let values = [1.0 + 1.0 / 256.0, -0.0, 1e-30, -1e-30, 0.0, 65519.0];
        let mut bytes = [0; 12];
        assert!(round_row(Dtype::F16, &values, &mut bytes));
        let stored = decode(Dtype::F16, &bytes);
        let least = f16::from_bits(1).to_f32();
        assert_eq!(stored, [1.003_906_3, -0.0, least, -least, 0.0, 65504.0]);
        assert!(round_row(Dtype::Bf16, &values, &mut bytes));
        let stored = decode(Dtype::Bf16, &bytes);
        assert_eq!(stored[0], 1.0, "a tie goes to the even one");
        assert_eq!(stored[5], 65536.0);
    }

    #[test]
    fn a_row_that_does_not_fit_is_left_as_it_was() {
        for (dtype, value) in [
            (Dtype::F16, 65520.0),
            (Dtype::F16, -1e9),
            (Dtype::Bf16, f32::MAX),
            (Dtype::Bf16, f32::NAN),
            (Dtype::F32, f32::INFINITY),
        ] {
            let mut bytes = vec![7; 2 * dtype.size()];
            assert!(!round_row(dtype, &[1.0, value], &mut bytes), "{value}");
            assert!(bytes.iter().all(|&byte| byte == 7));
        }
    }
}
