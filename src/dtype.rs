//! The storage types a weight can have, and how each becomes the exact f32 magnitude that scores are made of.
//!
//! Weights are handled as their raw bits. Nothing is ever written back from a decoded value, so survivors keep
//! their bits whatever happens here.

use bytemuck::Pod;

/// How a weight is stored. The discriminant is the code the shaders switch on (`shaders/shared/decode.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Dtype {
    /// bfloat16: the upper half of an f32.
    Bf16 = 0,
    /// IEEE half precision, subnormals included.
    F16 = 1,
    /// IEEE single precision.
    F32 = 2,
}

impl Dtype {
    /// Every dtype that can be pruned.
    pub const ALL: [Self; 3] = [Self::Bf16, Self::F16, Self::F32];

    /// Bytes a weight takes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// The name safetensors gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::F32 => "F32",
        }
    }

    /// The dtype of a safetensors tensor, if it is one that can be pruned.
    #[must_use]
    pub const fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        match dtype {
            safetensors::Dtype::BF16 => Some(Self::Bf16),
            safetensors::Dtype::F16 => Some(Self::F16),
            safetensors::Dtype::F32 => Some(Self::F32),
            _ => None,
        }
    }
}

/// One stored weight: its bits, and the f32 they mean.
pub(crate) trait Weight: Pod + Send + Sync {
    /// The bits of `|w|` as an f32, exactly; for NaN and infinity anything from `0x7F80_0000` up.
    fn magnitude_bits(self) -> u32;
}

/// A bfloat16's bits.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct Bf16(pub u16);

/// A half's bits.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct F16(pub u16);

/// A float's bits.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct F32(pub u32);

impl Weight for Bf16 {
    #[inline(always)]
    fn magnitude_bits(self) -> u32 {
        u32::from(self.0 & 0x7fff) << 16
    }
}

impl Weight for F16 {
    #[inline(always)]
    fn magnitude_bits(self) -> u32 {
        let h = u32::from(self.0 & 0x7fff);
        // Three cases as selects, so that the loop around them vectorises. A subnormal is its integer mantissa
        // times 2^-24, which is a normal f32 and therefore survives a device that flushes subnormals.
        let normal = (h << 13) + (112 << 23);
        let subnormal = (h as f32 * f32::from_bits((127 - 24) << 23)).to_bits();
        let non_finite = (h << 13) | 0x7f80_0000;
        if h < 0x0400 {
            subnormal
        } else if h < 0x7c00 {
            normal
        } else {
            non_finite
        }
    }
}

impl Weight for F32 {
    #[inline(always)]
    fn magnitude_bits(self) -> u32 {
        self.0 & 0x7fff_ffff
    }
}

/// Calls `$body` with `$w` bound to the weights of `$bytes` as a typed slice.
///
/// `$bytes` must be aligned to the dtype's size and a whole number of weights long.
macro_rules! with_weights {
    ($dtype:expr, $bytes:expr, $cast:ident, |$w:ident| $body:expr) => {
        match $dtype {
            $crate::dtype::Dtype::Bf16 => {
                let $w = bytemuck::$cast::<u8, $crate::dtype::Bf16>($bytes);
                $body
            }
            $crate::dtype::Dtype::F16 => {
                let $w = bytemuck::$cast::<u8, $crate::dtype::F16>($bytes);
                $body
            }
            $crate::dtype::Dtype::F32 => {
                let $w = bytemuck::$cast::<u8, $crate::dtype::F32>($bytes);
                $body
            }
        }
    };
}
pub(crate) use with_weights;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_decodes_to_the_magnitude_the_half_crate_gives() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let got = f32::from_bits(F16(bits).magnitude_bits());
            if expected.is_nan() {
                assert!(got.is_nan(), "{bits:#06x}");
            } else {
                assert_eq!(got.to_bits(), expected.abs().to_bits(), "{bits:#06x}");
            }
        }
    }

    #[test]
    fn every_bfloat16_decodes_to_the_magnitude_the_half_crate_gives() {
        for bits in 0..=u16::MAX {
            let expected = half::bf16::from_bits(bits).to_f32();
            let got = f32::from_bits(Bf16(bits).magnitude_bits());
            if expected.is_nan() {
                assert!(got.is_nan(), "{bits:#06x}");
            } else {
                assert_eq!(got.to_bits(), expected.abs().to_bits(), "{bits:#06x}");
            }
        }
    }
}
