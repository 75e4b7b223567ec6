//! `prune --dry-run`: the plan as a table, or as JSON.

use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use swiftprune_wgpu::device::DeviceInfo;
use swiftprune_wgpu::plan::{Action, Allocation, PlannedBlock};
use swiftprune_wgpu::report::SelectionReport;
use swiftprune_wgpu::run::Prepared;
use swiftprune_wgpu::untrusted::{self, shown, shown_path};

use super::output;
use super::terminal::Terminal;

#[derive(Serialize)]
struct DryRun<'a> {
    device: &'a DeviceInfo,
    /// Where a run would write.
    output: String,
    score: &'static str,
    selection: SelectionReport,
    bytes: u64,
    bytes_pruned: u64,
    memory_bytes: u64,
    estimated_seconds: Option<f64>,
    tensors: Vec<PlannedRow<'a>>,
    /// Where they do not all get the same share.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<BlockRow<'a>>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct PlannedRow<'a> {
    name: &'a str,
    dtype: String,
    shape: &'a [usize],
    bytes: u64,
    pruned: bool,
    /// Fraction of each row that will go; none for a copied tensor, and while nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_because: Option<String>,
}

#[derive(Serialize)]
struct BlockRow<'a> {
    name: &'a str,
    weights: u64,
    asked: Option<f64>,
}

pub(super) fn print(
    prepared: &Prepared,
    output: Option<&Path>,
    json: bool,
    terminal: Terminal,
) -> anyhow::Result<()> {
    let (draft, device) = (prepared.draft(), prepared.devices().pruning().info());
    let output = output.map_or_else(|| draft.checkpoint().default_output(), Path::to_path_buf);
    let estimate = prepared.estimate()?;
    let estimated_seconds = estimate.time.map(|time| time.as_secs_f64());
    let tensors: Vec<PlannedRow<'_>> = draft
        .tensors()
        .iter()
        .map(|tensor| PlannedRow {
            name: &tensor.name,
            dtype: format!("{:?}", tensor.dtype),
            shape: &tensor.shape,
            bytes: tensor.len,
            pruned: matches!(tensor.action, Action::Prune { .. }),
            asked: tensor
                .asked()
                .filter(|_| tensor.target().is_some() && draft.is_allocated()),
            copied_because: match &tensor.action {
                Action::Copy(reason) => Some(reason.to_string()),
                _ => None,
            },
        })
        .collect();
    let options = draft.options();
    let of_block = |block: &'_ PlannedBlock| {
        let asked = block.asked(draft.tensors());
        asked.filter(|_| draft.is_allocated())
    };
    let blocks: Vec<BlockRow<'_>> = match options.allocation {
        Allocation::Uniform => Vec::new(),
        _ => (draft.blocks().iter())
            .map(|block| BlockRow {
                name: &block.name,
                weights: block.weights,
                asked: of_block(block),
            })
            .collect(),
    };
    let mut stdout = std::io::stdout().lock();
    if json {
        let plan = DryRun {
            device,
            output: output.to_string_lossy().into_owned(),
            score: draft.score().name,
            selection: SelectionReport::allocated(&options.selection, &options.allocation),
            bytes: draft.bytes_total(),
            bytes_pruned: draft.bytes_pruned(),
            memory_bytes: estimate.memory,
            estimated_seconds,
            tensors,
            blocks,
            warnings: draft.warnings(),
        };
        stdout.write_all(untrusted::json(&plan)?.as_bytes())?;
        return Ok(());
    }
    let mut rows = vec![
        ["TENSOR", "DTYPE", "SHAPE", "BYTES", "PLAN"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for tensor in &tensors {
        rows.push(vec![
            shown(tensor.name).to_string(),
            tensor.dtype.clone(),
            format!("{:?}", tensor.shape),
            output::bytes(tensor.bytes),
            tensor.copied_because.as_ref().map_or_else(
                || planned(tensor, &options.allocation),
                |reason| format!("copy: {reason}"),
            ),
        ]);
    }
    stdout.write_all(output::table(&rows, &[3]).as_bytes())?;
    if !blocks.is_empty() {
        let mut rows = vec![["BLOCK", "WEIGHTS", "ASKED"].map(str::to_owned).to_vec()];
        rows.extend(blocks.iter().map(|block| {
            let asked = block.asked.map_or_else(|| "-".to_owned(), output::percent);
            vec![
                shown(block.name).to_string(),
                output::count(block.weights),
                asked,
            ]
        }));
        stdout.write_all(output::table(&rows, &[1, 2]).as_bytes())?;
    }
    if !draft.is_allocated() {
        terminal.say(format_args!(
            "The share of each block is known once the model is calibrated; with --norms it is shown here."
        ));
    }
    let pruned = draft.pruned().count();
    terminal.say(format_args!(
        "{pruned} of {} tensors would be pruned: {} of {}. Memory: about {}.{} The output would be {}; nothing was written.",
        draft.tensors().len(),
        output::bytes(draft.bytes_pruned()),
        output::bytes(draft.bytes_total()),
        output::bytes(estimate.memory),
        estimated_seconds.map_or_else(String::new, |seconds| format!(
            " Computing: about {seconds:.1} s on {device}, measured on a sample; plus time for the disk."
        )),
        shown_path(&output)
    ));
    Ok(())
}

/// What happens to a tensor that is pruned.
fn planned(tensor: &PlannedRow<'_>, allocation: &Allocation) -> String {
    match (tensor.asked, allocation) {
        (Some(asked), rule) if *rule != Allocation::Uniform => {
            format!("prune {}", output::percent(asked))
        }
        _ => "prune".to_owned(),
    }
}
