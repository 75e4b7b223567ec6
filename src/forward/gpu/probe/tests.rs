use std::time::Instant;

use super::super::recorder::Recorder;
use super::kernels;
use crate::device::adapter::adapters;
use crate::device::adapter::faults::{Fault, Faults};
use crate::device::product::PRODUCT;
use crate::forward::kernels::KERNELS;

/// What the check says of every adapter here, each with a fault.
fn check(fault: Option<Fault>) -> Vec<(String, Result<(), String>)> {
    let check = |adapter: crate::device::adapter::Adapter| {
        let name = adapter.info.to_string();
        let context = adapter.open(Faults::new(fault)).unwrap();
        let start = Instant::now();
        let recorder = Recorder::new(&context, super::TOKENS);
        let compiled = start.elapsed();
        let result = kernels(&recorder).unwrap();
        let all = start.elapsed();
        println!("{name}: {compiled:?} to compile, {all:?} in all");
        (name, result)
    };
    adapters(true).into_iter().map(check).collect()
}

#[test]
fn every_adapter_here_runs_the_kernels_right() {
    for (name, result) in check(None) {
        assert_eq!(result, Ok(()), "{name}");
    }
}

#[test]
fn an_adapter_that_ignores_the_barriers_of_a_kernel_does_not_pass() {
    let shaders = KERNELS
        .iter()
        .chain([&PRODUCT])
        .map(|kernel| &kernel.shader);
    for shader in shaders.filter(|shader| shader.wgsl.contains("Barrier();")) {
        for (name, result) in check(Some(Fault::WithoutBarriers(shader.name))) {
            assert!(result.is_err(), "{} on {name}", shader.name);
        }
    }
}
