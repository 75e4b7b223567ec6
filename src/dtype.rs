//! The storage types a weight can have, and how each becomes the exact f32 magnitude that scores are made of.
//!
//! Weights are handled as their raw bits. Nothing is ever written back from a decoded value, so survivors keep
//! their bits whatever happens here.

use std::fmt;

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

    /// The dtype of a stored tensor, if it is one that can be pruned.
    #[must_use]
    pub const fn from_stored(dtype: StoredDtype) -> Option<Self> {
        match dtype {
            StoredDtype::Bf16 => Some(Self::Bf16),
            StoredDtype::F16 => Some(Self::F16),
            StoredDtype::F32 => Some(Self::F32),
            _ => None,
        }
    }

    /// The dtype of a tensor that is stored so.
    #[must_use]
    pub const fn stored(self) -> StoredDtype {
        match self {
            Self::Bf16 => StoredDtype::Bf16,
            Self::F16 => StoredDtype::F16,
            Self::F32 => StoredDtype::F32,
        }
    }
}

/// The enum out of one table: variant, name in the format, bits of an element.
macro_rules! stored_dtypes {
    ($($(#[$doc:meta])* $variant:ident = ($name:literal, $bits:literal),)*) => {
        /// Every type of element that the safetensors format knows; [`Dtype`] has those that can be pruned.
        ///
        /// `Display` and `Debug` give the name that the format uses: `BF16`, `F8_E4M3`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum StoredDtype {
            $($(#[$doc])* $variant,)*
        }

        impl StoredDtype {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that the format gives it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Bits an element takes; not always whole bytes.
            #[must_use]
            pub const fn bits(self) -> u64 {
                match self {
                    $(Self::$variant => $bits,)*
                }
            }

            /// The dtype of this name.
            #[must_use]
            pub fn by_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

stored_dtypes! {
    /// Booleans, a byte each.
    Bool = ("BOOL", 8),
    /// Four-bit floats of the OCP microscaling formats (MXFP4).
    F4 = ("F4", 4),
    /// Six-bit floats of the OCP microscaling formats, with three bits of mantissa.
    F6E2m3 = ("F6_E2M3", 6),
    /// Six-bit floats of the OCP microscaling formats, with two bits of mantissa.
    F6E3m2 = ("F6_E3M2", 6),
    /// Unsigned bytes.
    U8 = ("U8", 8),
    /// Signed bytes.
    I8 = ("I8", 8),
    /// Eight-bit floats with two bits of mantissa (arXiv 2209.05433).
    F8E5m2 = ("F8_E5M2", 8),
    /// Eight-bit floats with three bits of mantissa (arXiv 2209.05433).
    F8E4m3 = ("F8_E4M3", 8),
    /// Eight-bit powers of two: the scales of the OCP microscaling formats.
    F8E8m0 = ("F8_E8M0", 8),
    /// As `F8E4m3`, without infinities and a negative zero (arXiv 2206.02915).
    F8E4m3Fnuz = ("F8_E4M3FNUZ", 8),
    /// As `F8E5m2`, without infinities and a negative zero (arXiv 2206.02915).
    F8E5m2Fnuz = ("F8_E5M2FNUZ", 8),
    /// Signed integers of two bytes.
    I16 = ("I16", 16),
    /// Unsigned integers of two bytes.
    U16 = ("U16", 16),
    /// IEEE half precision.
    F16 = ("F16", 16),
    /// bfloat16: the upper half of an f32.
    Bf16 = ("BF16", 16),
    /// Signed integers of four bytes.
    I32 = ("I32", 32),
    /// Unsigned integers of four bytes.
    U32 = ("U32", 32),
    /// IEEE single precision.
    F32 = ("F32", 32),
    /// Complex numbers of two f32.
    C64 = ("C64", 64),
    /// IEEE double precision.
    F64 = ("F64", 64),
    /// Signed integers of eight bytes.
    I64 = ("I64", 64),
    /// Unsigned integers of eight bytes.
    U64 = ("U64", 64),
}

impl StoredDtype {
    /// Bytes that a tensor of this shape takes; `None` if they cannot be counted in 64 bits or are not whole.
    #[must_use]
    pub fn bytes_of(self, shape: &[usize]) -> Option<u64> {
        let mut bits = self.bits();
        for &dimension in shape {
            bits = bits.checked_mul(u64::try_from(dimension).ok()?)?;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl fmt::Display for StoredDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for StoredDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
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
    fn the_stored_dtypes_are_those_of_the_safetensors_crate() {
        use serde::Deserialize as _;
        use serde::de::value::{Error, StrDeserializer};
        for &dtype in StoredDtype::ALL {
            let theirs = StrDeserializer::<Error>::new(dtype.name());
            let theirs = safetensors::Dtype::deserialize(theirs).unwrap();
            assert_eq!(theirs.to_string(), dtype.to_string());
            assert_eq!(theirs.bitsize() as u64, dtype.bits(), "{dtype}");
            assert_eq!(StoredDtype::by_name(dtype.name()), Some(dtype));
        }
        assert_eq!(StoredDtype::ALL.len(), 22);
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_stored(dtype.stored()), Some(dtype));
            assert_eq!(dtype.stored().name(), dtype.name());
        }
    }

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
