//! What a run will do, for humans: every setting that the result depends on.

use swiftprune_wgpu::calibration::{Calibration, windows_of, windows_said};
use swiftprune_wgpu::device::Device;
use swiftprune_wgpu::plan::NormsUse;
use swiftprune_wgpu::plan::Selection;
use swiftprune_wgpu::plan::{Allocation, Draft, NormsSource};
use swiftprune_wgpu::run::Prepared;
use swiftprune_wgpu::untrusted::{shown, shown_path};

use super::output;

/// A line each: model, rule, score, norms, device.
pub(super) fn settings(prepared: &Prepared, is_sequential: bool) -> Vec<String> {
    let draft = prepared.draft();
    let score = draft.score();
    let is_without_norms = matches!(draft.norms_source(), NormsSource::None);
    let weights = draft.checkpoint().source.weights();
    let mut lines = vec![
        format!("model   {}", shown_path(weights.path())),
        format!(
            "prune   {}{}",
            rule(&draft.options().selection),
            allocation(&draft.options().allocation)
        ),
        format!(
            "score   {}: {}{}",
            score.name,
            match draft.options().compensation {
                Some(_) if score.has_inverse_hessian() => "w^2 / [H^-1]_jj",
                _ => score.formula,
            },
            if is_without_norms && score.norms != NormsUse::Unused {
                ", with n = 1"
            } else {
                ""
            }
        ),
        format!(
            "norms   {}{}",
            norms(prepared, draft),
            if is_sequential {
                ", block by block on pruned blocks"
            } else {
                ""
            }
        ),
        format!("device  {}", prepared.devices().pruning().info()),
    ];
    if let Some(kept) = kept(draft) {
        let behind_norms = lines.len() - 1;
        lines.insert(behind_norms, format!("kept    {kept}"));
    }
    lines
}

fn norms(prepared: &Prepared, draft: &Draft) -> String {
    match (draft.norms_source(), prepared.calibration()) {
        (NormsSource::ToMeasure(_), Some(calibration)) => {
            self::calibration(calibration, prepared.devices().forward())
        }
        (NormsSource::Read(norms), _) if draft.uses_norms() => {
            let tokens = norms
                .source
                .tokens
                .map_or_else(String::new, |n| format!(", {} tokens", output::count(n)));
            let path = norms.source.path.to_string_lossy();
            let windows = windows_said(&norms.source.metadata)
                .map_or_else(String::new, |said| format!(" in {}", shown(&said)));
            format!(
                "{} ({}{tokens}{windows})",
                shown(&path),
                norms.source.format
            )
        }
        _ => "none".to_owned(),
    }
}

/// How it is shared out, where blocks do not all get the same.
fn allocation(allocation: &Allocation) -> String {
    allocation.spread().map_or_else(String::new, |spread| {
        let name = allocation.name();
        format!("; shared out over the blocks by {name} (spread {spread})")
    })
}

/// What happens to the weights that stay, if anything does.
fn kept(draft: &Draft) -> Option<String> {
    let compensation = draft.options().compensation?;
    let mask = match compensation.mask_steps {
        0 => "",
        _ => ", which also chooses the mask",
    };
    Some(format!(
        "compensated: sketch of rank {}, ridge {}{mask}",
        compensation.rank, compensation.ridge
    ))
}

fn rule(selection: &Selection) -> String {
    match *selection {
        Selection::Ewma { sparsity, ewma } => {
            format!(
                "{} of each row, EWMA (block {}, gain 1/{})",
                output::percent(sparsity),
                ewma.block_size(),
                1 << ewma.gain_shift()
            )
        }
        Selection::Exact { sparsity } => {
            format!("{} of each row, exact", output::percent(sparsity))
        }
        Selection::Lambda { lambda, ewma } => {
            format!(
                "lambda {lambda}, EWMA (block {}, gain 1/{})",
                ewma.block_size(),
                1 << ewma.gain_shift()
            )
        }
        Selection::Pattern(pattern) => {
            format!("{pattern} ({} kept of every {})", pattern.n(), pattern.m())
        }
        _ => String::new(),
    }
}

/// What a calibration will measure.
pub(super) fn calibration(calibration: &Calibration, device: &Device) -> String {
    format!(
        "{}, {} tokens in {}, measured on {} in f32",
        shown(&calibration.text().name),
        output::count(calibration.tokens() as u64),
        windows_of(calibration.context(), &calibration.prefix().to_string()),
        output::device(device.info())
    )
}
