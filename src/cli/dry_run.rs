//! `prune --dry-run`: the plan as a table, or as JSON.

use std::io::Write as _;

use serde::Serialize;
use swiftprune_wgpu::device::DeviceInfo;
use swiftprune_wgpu::plan::Action;
use swiftprune_wgpu::report::SelectionReport;
use swiftprune_wgpu::run::Prepared;
use swiftprune_wgpu::untrusted::shown;

use super::output;
use super::terminal::Terminal;

#[derive(Serialize)]
struct DryRun<'a> {
    device: &'a DeviceInfo,
    score: &'static str,
    selection: SelectionReport,
    bytes: u64,
    bytes_pruned: u64,
    memory_bytes: u64,
    estimated_seconds: Option<f64>,
    tensors: Vec<PlannedRow<'a>>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct PlannedRow<'a> {
    name: &'a str,
    dtype: String,
    shape: &'a [usize],
    bytes: u64,
    pruned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_because: Option<String>,
}

pub(super) fn print(prepared: &Prepared, json: bool, terminal: Terminal) -> anyhow::Result<()> {
    let (draft, device) = (prepared.draft(), prepared.devices().pruning().info());
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
            copied_because: match &tensor.action {
                Action::Copy(reason) => Some(reason.to_string()),
                _ => None,
            },
        })
        .collect();
    let mut stdout = std::io::stdout().lock();
    if json {
        let plan = DryRun {
            device,
            score: draft.score().name,
            selection: (&draft.options().selection).into(),
            bytes: draft.bytes_total(),
            bytes_pruned: draft.bytes_pruned(),
            memory_bytes: estimate.memory,
            estimated_seconds,
            tensors,
            warnings: draft.warnings(),
        };
        serde_json::to_writer_pretty(&mut stdout, &plan)?;
        writeln!(stdout)?;
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
            tensor
                .copied_because
                .as_ref()
                .map_or_else(|| "prune".to_owned(), |reason| format!("copy: {reason}")),
        ]);
    }
    stdout.write_all(output::table(&rows, &[3]).as_bytes())?;
    let pruned = draft.pruned().count();
    terminal.say(format_args!(
        "{pruned} of {} tensors would be pruned: {} of {}. Memory: about {}.{} Nothing was written.",
        draft.tensors().len(),
        output::bytes(draft.bytes_pruned()),
        output::bytes(draft.bytes_total()),
        output::bytes(estimate.memory),
        estimated_seconds.map_or_else(String::new, |seconds| format!(
            " Computing: about {seconds:.1} s on {device}, measured on a sample; plus time for the disk."
        ))
    ));
    Ok(())
}
