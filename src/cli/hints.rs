//! The way on after an error, in flags. The library says what is wrong; what to type is said here.

use swiftprune_wgpu::untrusted::shown;
use swiftprune_wgpu::{
    bench, calibration, checkpoint, device, norms, parts, plan, prune, run, sweep,
};

/// What to try next, where a flag helps.
pub(super) fn hint(error: &anyhow::Error) -> Option<String> {
    // Wherever on its way a device failed: what helps is the same.
    if let Some(error) = error.chain().find_map(|error| error.downcast_ref()) {
        return of_device(error);
    }
    let of_sweep = error.downcast_ref::<sweep::Error>();
    if let Some(sweep::Error::PatternsAlone) = of_sweep {
        return Some("leave --allocate out, or give --sparsity, too".to_owned());
    }
    let of_run = match of_sweep {
        Some(sweep::Error::Run(run::Error::Evaluation(error))) => return of_calibration(error),
        Some(sweep::Error::Run(error)) => Some(error),
        _ => error.downcast_ref::<run::Error>(),
    };
    if let Some(error) = of_run {
        return match error {
            run::Error::Checkpoint(checkpoint::Error::OutputExists { .. }) => {
                Some("--force replaces it".to_owned())
            }
            run::Error::Plan(error) => of_plan(error),
            run::Error::Prune(error) => of_prune(error),
            run::Error::Calibration(error) => of_calibration(error).or_else(|| {
                Some(
                    "give --norms FILE (from `calibrate`, or a llama.cpp importance matrix), a supported model with its \
                     config.json and tokenizer.json, or --calibration none to prune by the weights alone, which costs \
                     much quality"
                        .to_owned(),
                )
            }),
            run::Error::Evaluation(error) => of_calibration(error)
                .or_else(|| Some("leave --eval out to prune without it".to_owned())),
            run::Error::NothingMeasured { norms: Some(_) } => {
                Some("leave out --norms, or --sequential".to_owned())
            }
            run::Error::NothingMeasured { norms: None } => Some(
                "--sequential needs a calibration: a model with its config.json and tokenizer.json, and a score that uses norms"
                    .to_owned(),
            ),
            run::Error::AllocationNeedsAllBlocks { .. } => {
                Some("--allocate atp goes by the number of a block alone".to_owned())
            }
            run::Error::Report { .. } => Some("give another name to --report".to_owned()),
            run::Error::Device(error) => of_device(error),
            run::Error::PartNeedsNorms => Some(
                "`calibrate MODEL -o norms.safetensors` measures them once, --norms norms.safetensors gives them to every part; \
                 --calibration none prunes by the weights alone"
                    .to_owned(),
            ),
            run::Error::Interrupted { .. } => Some("--resume goes on with them".to_owned()),
            run::Error::Parts(error) => of_parts(error),
            _ => None,
        };
    }
    if let Some(bench::Error::Temporary { .. }) = error.downcast_ref() {
        return Some("--dir DIR chooses another place, --no-files leaves files out".to_owned());
    }
    error
        .downcast_ref::<calibration::Error>()
        .and_then(of_calibration)
}

fn of_parts(error: &parts::Error) -> Option<String> {
    Some(
        match error {
            parts::Error::Checkpoint(checkpoint::Error::OutputExists { .. }) => "--force replaces it",
            parts::Error::OutputExists { .. } => {
                "--force makes it again, of all that is finished"
            }
            parts::Error::OtherSettings { .. } | parts::Error::OtherInput { .. } => {
                "run with the same settings, remove the directory of parts, or choose another --output"
            }
            parts::Error::Finished { .. } => {
                "--resume keeps what is finished, --force prunes it again"
            }
            parts::Error::SingleFile { .. } => "leave --part out",
            parts::Error::NormsUnused { .. } => "leave --norms out",
            parts::Error::Missing { .. } => {
                "run the missing parts with `prune --part`, or all that is missing with `prune --resume`"
            }
            parts::Error::Changed { .. } => "`prune --resume` prunes again what has changed",
            parts::Error::NoParts { .. } => {
                "`prune --part K/N` makes parts; `merge OUTPUT --from DIR` takes them from another place"
            }
            parts::Error::NotParts { .. } => "choose another --output",
            _ => return None,
        }
        .to_owned(),
    )
}

fn of_device(error: &device::Error) -> Option<String> {
    Some(
        match error {
            device::Error::NoAdapter { .. } => {
                "`swiftprune-wgpu devices` lists what there is; --device cpu always works"
            }
            device::Error::Unfit { .. } => {
                "--device cpu works; `swiftprune-wgpu selftest` says where a device differs"
            }
            device::Error::Failed { .. } => "--device cpu gives the same result",
            _ => return None,
        }
        .to_owned(),
    )
}

/// The most globs that a hint spells out; more is another model's file rather than a gap.
const MOST_GLOBS: usize = 16;

fn of_plan(error: &plan::Error) -> Option<String> {
    Some(match error {
        plan::Error::NormsRequired { .. } => {
            "let the model be calibrated (--calibration builtin), give --norms FILE (from `calibrate`, or a llama.cpp \
             importance matrix), or take --score ria, which works without"
                .to_owned()
        }
        plan::Error::SketchRequired { norms: None, .. } => {
            "--compensate needs a calibration: a model with its config.json and tokenizer.json, or --norms FILE from \
             `calibrate --sketch`"
                .to_owned()
        }
        plan::Error::SketchRequired { wanted, found, .. } => format!(
            "`calibrate --sketch {wanted}` measures them{}; without --norms the model is calibrated in the same run",
            found.map_or_else(String::new, |found| format!(", --compensate {found} uses what is there"))
        ),
        plan::Error::SketchesMissing { .. } => {
            "`calibrate --sketch` measures them; without --norms the model is calibrated in the same run".to_owned()
        }
        plan::Error::AllocationNeedsNorms { .. } => {
            "let the model be calibrated (--calibration builtin), give --norms FILE, or take --allocate atp, which goes by the \
             place of a block alone"
                .to_owned()
        }
        plan::Error::NothingToAllocate { .. } => {
            "leave --allocate out, or give --sparsity in its place".to_owned()
        }
        plan::Error::Norms(norms::Error::NoMeans { .. }) => {
            "`calibrate --means` writes them, and without --norms they are measured; --score wanda goes without".to_owned()
        }
        plan::Error::NormsMissing { globs, .. } if (1..=MOST_GLOBS).contains(&globs.len()) => format!(
            "leave them out with{}",
            globs.iter().map(|glob| format!(" --exclude {}", quoted(glob))).collect::<String>()
        ),
        plan::Error::NormsMissing { .. } | plan::Error::OtherBlocks { .. } => {
            "let the model be calibrated instead (--calibration builtin), or take --calibration none and --score ria"
                .to_owned()
        }
        plan::Error::NormsAmbiguous { second, .. } => {
            format!("--exclude {} leaves that one out", quoted(second))
        }
        plan::Error::UnsupportedDtype { tensor, .. } | plan::Error::RowTooLong { tensor, .. } => {
            format!("--exclude {} leaves it out", quoted(tensor))
        }
        plan::Error::GlobMatchesNothing { .. } => {
            "--dry-run lists every tensor, and what would happen to it".to_owned()
        }
        plan::Error::MostlyUnknown { left_dense, .. } => format!(
            "--include GLOB chooses tensors by name, as in --include '{}'; --dry-run lists every tensor",
            left_dense.patterns.first().map_or_else(|| "*".into(), |row| shown(&row.pattern).to_string())
        ),
        plan::Error::NothingToPrune { .. } => {
            "--dry-run says why for each tensor, --include GLOB overrides".to_owned()
        }
        _ => return None,
    })
}

fn of_prune(error: &prune::Error) -> Option<String> {
    Some(match error {
        prune::Error::NonFinite { tensor, .. } => format!(
            "--keep-non-finite leaves such weights alone, --exclude '{}' the whole tensor",
            shown(tensor)
        ),
        prune::Error::TooFewZeros { .. } => {
            "--device cpu gives the right result; `swiftprune-wgpu selftest` checks the device"
                .to_owned()
        }
        prune::Error::Plan(error) => return of_plan(error),
        prune::Error::Device(error) => return of_device(error),
        _ => return None,
    })
}

fn of_calibration(error: &calibration::Error) -> Option<String> {
    match error {
        calibration::Error::Context { max, .. } => Some(format!("--context {max} at most")),
        calibration::Error::ShortWindow { wanted, .. } => {
            Some(format!("--context {wanted} at least"))
        }
        calibration::Error::FewTokens { .. } => {
            Some("--tokens 2 at least (--eval-tokens of `sweep`)".to_owned())
        }
        _ => None,
    }
}

/// A glob or a name as a shell takes it.
fn quoted(text: &str) -> String {
    format!("'{}'", shown(&text.replace('\'', "'\\''")))
}
