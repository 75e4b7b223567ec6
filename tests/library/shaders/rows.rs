//! What a shader's row says of its module: the entry points, with their bindings and workgroup sizes.

use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage};
use swiftprune_wgpu::internals::{EntryPoint, PASSES};

use super::{module, parse, shaders};

#[test]
fn every_pass_names_the_entry_points_of_its_module_and_no_other() {
    for pass in shaders() {
        let (module, _) = module(pass);
        let found: Vec<&str> = module
            .entry_points
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        let registered: Vec<&str> = pass.entry_points.iter().map(|entry| entry.name).collect();
        assert_eq!(found, registered, "{}", pass.name);
        for entry in &module.entry_points {
            assert_eq!(entry.stage, ShaderStage::Compute, "{}", entry.name);
        }
    }
}

/// The numbers of the bindings that an entry point uses, in ascending order.
fn bindings(module: &Module, info: &ModuleInfo, index: usize) -> Vec<u32> {
    let entry = info.get_entry_point(index);
    let variables = module.global_variables.iter();
    let used = variables.filter(|(handle, _)| !entry[*handle].is_empty());
    let bound = used.filter_map(|(_, variable)| variable.binding.as_ref());
    let mut numbers: Vec<u32> = bound.map(|binding| binding.binding).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn every_entry_point_has_the_bindings_and_the_workgroup_size_of_its_row() {
    for pass in shaders() {
        let (module, info) = module(pass);
        for (
            index,
            &EntryPoint {
                name,
                bindings: registered,
                workgroup_size,
                ..
            },
        ) in pass.entry_points.iter().copied().enumerate()
        {
            assert_eq!(bindings(&module, &info, index), registered, "{name}");
            let found = module.entry_points[index].workgroup_size;
            assert_eq!(found, [workgroup_size, 1, 1], "{name}");
        }
    }
    // The comparison's own: a binding that an entry point does not use is not among its own.
    let wgsl = "@group(0) @binding(7) var<storage, read_write> x: array<u32>;
        @group(0) @binding(8) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(1) fn first() { x[0] = 1u; }
        @compute @workgroup_size(1) fn both() { x[0] = y[0]; }";
    let (module, info) = parse(wgsl).expect("WGSL");
    assert_eq!(bindings(&module, &info, 0), [7]);
    assert_eq!(bindings(&module, &info, 1), [7, 8]);
}

#[test]
fn entry_points_are_unique_over_all_passes() {
    let mut names: Vec<&str> = shaders()
        .flat_map(|pass| pass.entry_points.iter().map(|entry| entry.name))
        .collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(
        names.len(),
        all,
        "the device keeps pipelines by these names"
    );
}

#[test]
fn an_invalid_shader_is_refused() {
    let wgsl = PASSES[0].wgsl;
    assert!(parse(wgsl).is_ok());
    // Neither what does not parse nor what parses and cannot lie in a buffer.
    for broken in [
        wgsl.replace("array<vec2<u32>>", "array<vec2<u32>"),
        wgsl.replace("sums: array<vec2<u32>>", "sums: array<vec2<bool>>"),
    ] {
        assert_ne!(broken, wgsl);
        assert!(parse(&broken).is_err());
    }
}
