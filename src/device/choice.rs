//! Which device: what a user may ask for, and which of those that are there it means.

use std::fmt;
use std::str::FromStr;

use super::info::{DeviceInfo, DeviceKind};

/// What a user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// A hardware adapter if there is one, else the CPU. Never a software adapter.
    #[default]
    Auto,
    /// The CPU twins.
    Cpu,
    /// A hardware adapter, or an error.
    Gpu,
    /// The adapter of this index in [`devices`](super::devices).
    Index(usize),
    /// The one adapter whose back end, name or driver contains this, whatever its case.
    Name(String),
}

impl FromStr for DeviceChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            _ => text
                .parse()
                .map_or_else(|_| Self::Name(text.to_owned()), Self::Index),
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu => f.write_str("gpu"),
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The adapter `auto` and `gpu` take: hardware, a discrete one first, a native back end before GL.
#[must_use]
pub(crate) fn preferred(infos: &[DeviceInfo]) -> Option<usize> {
    let rank = |info: &DeviceInfo| {
        let kind = match info.kind {
            DeviceKind::Discrete => 0,
            DeviceKind::Integrated => 1,
            DeviceKind::Virtual => 2,
            _ => 3,
        };
        (kind, info.backend == "gl", info.index)
    };
    infos
        .iter()
        .enumerate()
        .filter(|(_, info)| info.kind.is_hardware())
        .min_by_key(|(_, info)| rank(info))
        .map(|(position, _)| position)
}

/// The position of the chosen adapter, `None` for the CPU, or what there was instead.
pub(super) fn choose(choice: &DeviceChoice, infos: &[DeviceInfo]) -> Result<Option<usize>, String> {
    match choice {
        DeviceChoice::Cpu => Ok(None),
        DeviceChoice::Auto => Ok(preferred(infos)),
        DeviceChoice::Gpu => preferred(infos).map(Some).ok_or_else(|| {
            if infos.is_empty() {
                "there is no GPU driver here".to_owned()
            } else {
                "this machine has only software adapters, which must be selected by name".to_owned()
            }
        }),
        DeviceChoice::Index(index) => {
            if *index < infos.len() {
                Ok(Some(*index))
            } else {
                Err(format!("there are {} adapters", infos.len()))
            }
        }
        DeviceChoice::Name(name) => {
            let wanted = name.to_lowercase();
            let fits = |info: &DeviceInfo| {
                format!("{} {} {}", info.backend, info.name, info.driver)
                    .to_lowercase()
                    .contains(&wanted)
            };
            let found: Vec<usize> = (0..infos.len()).filter(|&i| fits(&infos[i])).collect();
            match found[..] {
                [one] => Ok(Some(one)),
                [] => Err("no adapter's back end, name or driver contains that".to_owned()),
                _ => Err(format!(
                    "{} adapters match ({}); use the index",
                    found.len(),
                    found
                        .iter()
                        .map(|&i| format!("{i}: {}", infos[i]))
                        .collect::<Vec<_>>()
                        .join(", ")
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(index: usize, backend: &str, kind: DeviceKind, name: &str) -> DeviceInfo {
        DeviceInfo {
            index: Some(index),
            name: name.to_owned(),
            backend: backend.to_owned(),
            kind,
            driver: "driver 1".to_owned(),
        }
    }

    #[test]
    fn auto_takes_hardware_discrete_first_and_native_before_gl() {
        let infos = [
            info(0, "vulkan", DeviceKind::Software, "llvmpipe"),
            info(1, "gl", DeviceKind::Discrete, "GeForce"),
            info(2, "vulkan", DeviceKind::Integrated, "Iris"),
            info(3, "vulkan", DeviceKind::Discrete, "GeForce"),
        ];
        assert_eq!(choose(&DeviceChoice::Auto, &infos), Ok(Some(3)));
        assert_eq!(choose(&DeviceChoice::Auto, &infos[..3]), Ok(Some(1)));
    }

    #[test]
    fn a_software_adapter_is_taken_only_when_named() {
        let infos = [info(0, "vulkan", DeviceKind::Software, "llvmpipe")];
        assert_eq!(choose(&DeviceChoice::Auto, &infos), Ok(None));
        assert!(choose(&DeviceChoice::Gpu, &infos).is_err());
        assert_eq!(choose(&"LLVMpipe".parse().unwrap(), &infos), Ok(Some(0)));
        assert_eq!(choose(&"0".parse().unwrap(), &infos), Ok(Some(0)));
    }

    #[test]
    fn a_name_that_fits_two_adapters_or_none_is_refused() {
        let infos = [
            info(0, "vulkan", DeviceKind::Software, "llvmpipe"),
            info(1, "gl", DeviceKind::Software, "llvmpipe"),
        ];
        let choose = |name: &str| choose(&DeviceChoice::Name(name.to_owned()), &infos);
        assert!(choose("llvmpipe").unwrap_err().contains("use the index"));
        assert!(choose("radeon").is_err());
        assert_eq!(choose("gl"), Ok(Some(1)));
        assert_eq!(choose("vulkan"), Ok(Some(0)));
    }
}
