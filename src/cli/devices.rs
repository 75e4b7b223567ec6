//! `devices`: what there is to run on.

use std::io::Write as _;

use serde::Serialize;
use swiftprune_wgpu::device::{Device, DeviceChoice, DeviceInfo, devices};
use swiftprune_wgpu::untrusted::{self, shown};

use super::terminal::Terminal;
use super::{args, output};

#[derive(Serialize)]
struct Listing {
    /// The adapters, in the order of their indices.
    adapters: Vec<DeviceInfo>,
    /// What `--device auto` takes.
    auto: DeviceInfo,
}

pub(super) fn run(args: &args::Devices, terminal: Terminal) -> anyhow::Result<()> {
    let adapters = devices();
    let auto = Device::open(&DeviceChoice::Auto)?.info().clone();
    let mut stdout = std::io::stdout().lock();
    if args.json {
        stdout.write_all(untrusted::json(&Listing { adapters, auto })?.as_bytes())?;
        return Ok(());
    }
    let mut rows = vec![
        ["DEVICE", "BACK END", "KIND", "NAME", "DRIVER"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let cpu = Device::open(&DeviceChoice::Cpu)?.info().clone();
    for info in std::iter::once(&cpu).chain(&adapters) {
        let device = info
            .index
            .map_or_else(|| "cpu".to_owned(), |index| index.to_string());
        let mark = if *info == auto { " *" } else { "" };
        rows.push(vec![
            device + mark,
            info.backend.clone(),
            info.kind.to_string(),
            shown(&info.name).to_string(),
            shown(&info.driver).to_string(),
        ]);
    }
    stdout.write_all(output::table(&rows, &[]).as_bytes())?;
    terminal.say(
        "* used by --device auto: a hardware adapter if there is one, otherwise the CPU; never a software adapter",
    );
    Ok(())
}
