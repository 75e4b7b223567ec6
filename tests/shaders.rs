//! The shaders alone: every pass, and every kernel of the forward pass, is valid WGSL, becomes valid code for every back end, stays within what every adapter
//! has, and declares the uniform block that the Rust side writes. No adapter is needed.

use std::collections::BTreeSet;
use std::path::Path;

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, Layouter};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Expression, Module, ShaderStage, TypeInner};
use swiftprune_wgpu::internals::{
    EntryPoint, FUSED, KERNELS, Kernel, PASSES, Shader, WIDE_WORKGROUP_BYTES, params_layout,
};

/// What WebGPU promises of every adapter, and what the documentation of the passes does.
const INVOCATIONS: u32 = 256;
const WORKGROUP_BYTES: u32 = 16 << 10;
const STORAGE_BUFFERS: usize = 4;

/// The module, valid without a single optional capability.
fn parse(wgsl: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| e.emit_to_string(wgsl))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|e| e.emit_to_string(wgsl))?;
    Ok((module, info))
}

/// Every shader: those of the passes, alone and joined, then those of the forward pass.
fn shaders() -> impl Iterator<Item = &'static Shader> {
    PASSES
        .iter()
        .chain(FUSED)
        .copied()
        .chain(KERNELS.iter().map(|kernel| &kernel.shader))
}

/// The module of a registered shader.
fn module(pass: &Shader) -> (Module, ModuleInfo) {
    parse(pass.wgsl).unwrap_or_else(|error| panic!("{}: {error}", pass.name))
}

/// Calls `check` with every entry point of every pass: what to name it, its module, its index there and its name.
fn each_entry_point(mut check: impl FnMut(&str, &Module, &ModuleInfo, usize, &str)) {
    let mut seen = 0;
    for pass in shaders() {
        let (module, info) = module(pass);
        for (index, entry) in module.entry_points.iter().enumerate() {
            let what = format!("{}.wgsl, {}", pass.name, entry.name);
            check(&what, &module, &info, index, &entry.name);
            seen += 1;
        }
    }
    assert!(seen >= shaders().count(), "a shader without an entry point");
}

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

// --- The files.

/// Every shader, and the folder of the file that has its entry points.
fn shaders_and_folders() -> impl Iterator<Item = (&'static Shader, &'static str)> {
    let alone = PASSES.iter().map(|shader| (*shader, "entry/alone"));
    let fused = FUSED.iter().map(|shader| (*shader, "entry/fused"));
    let forward = KERNELS.iter().map(|kernel| (&kernel.shader, "forward"));
    alone.chain(fused).chain(forward)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of `shaders/FILE.wgsl`.
fn read_file(file: &str) -> String {
    let path = root().join(format!("shaders/{file}.wgsl"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every WGSL file in a folder of `shaders/` and those within it, as rows name them.
fn files_in(folder: &str) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("shaders").join(folder)).expect("the shaders") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        let within = Path::new(folder).join(&*name);
        let within = within.to_string_lossy().replace('\\', "/");
        if path.is_dir() {
            files.extend(files_in(&within));
        } else {
            assert_eq!(path.extension().and_then(|e| e.to_str()), Some("wgsl"));
            files.insert(within);
        }
    }
    files
}

/// What a line of the first comment says after `// KEY: `, if there is one.
fn stated<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let comment = text.lines().take_while(|line| line.starts_with("//"));
    let mut lines = comment.filter_map(|line| line.strip_prefix("// ")?.strip_prefix(key));
    let found = lines.next().and_then(|rest| rest.strip_prefix(": "));
    assert!(lines.next().is_none(), "{key} twice");
    found
}

/// Adds what a file says it needs, then the file: each before what needs it, and once.
fn add_needed(
    file: &str,
    read: &impl Fn(&str) -> String,
    files: &mut Vec<String>,
    open: &mut Vec<String>,
) {
    assert!(
        !open.iter().any(|other| other == file),
        "{file} needs itself: {open:?}"
    );
    if files.iter().any(|other| other == file) {
        return;
    }
    open.push(file.to_owned());
    for needed in stated(&read(file), "Needs")
        .into_iter()
        .flat_map(|list| list.split(", "))
    {
        add_needed(needed, read, files, open);
    }
    open.pop();
    files.push(file.to_owned());
}

/// The files of a module whose last one is this.
fn needed(file: &str, read: &impl Fn(&str) -> String) -> Vec<String> {
    let mut files = Vec::new();
    add_needed(file, read, &mut files, &mut Vec::new());
    files
}

#[test]
fn a_shader_is_made_of_the_files_that_these_say_they_need_in_order() {
    for (shader, folder) in shaders_and_folders() {
        let last = format!("{folder}/{}", shader.name);
        assert_eq!(shader.files, needed(&last, &read_file), "{last}");
        let text: String = shader.files.iter().map(|file| read_file(file)).collect();
        assert_eq!(shader.wgsl, text, "{last}");
    }
    // What the comparison rests on.
    let read = |file: &str| match file {
        "a" => "// A.\n//\n// Needs: b, c\n\n// Needs: d\n".to_owned(),
        "b" => "// B.\n// Needs: c\n".to_owned(),
        _ => "// C.\n".to_owned(),
    };
    assert_eq!(needed("a", &read), ["c", "b", "a"]);
}

#[test]
fn every_file_is_part_of_a_shader() {
    let used = shaders().flat_map(|shader| shader.files.iter());
    let used: BTreeSet<String> = used.map(|file| (*file).to_owned()).collect();
    assert_eq!(files_in(""), used);
}

#[test]
fn every_file_of_the_passes_has_a_twin_of_its_name_or_says_why_not() {
    let passes = files_in("passes");
    for file in &passes {
        let text = read_file(file);
        match (stated(&text, "Twin"), stated(&text, "No twin")) {
            (Some(twin), None) => {
                // After a comma: in what it is not the same.
                let twin = twin.split(',').next().expect("a path");
                assert_eq!(twin, format!("src/{file}.rs"));
                assert!(root().join(twin).is_file(), "{twin}");
            }
            (None, Some(reason)) => assert!(reason.ends_with('.'), "{file}: {reason}"),
            both => panic!("{file}: {both:?}"),
        }
    }
    let has_file = |shader: &&Shader| passes.contains(&format!("passes/{}", shader.name));
    assert!(
        PASSES.iter().all(has_file),
        "a pass without a file of functions"
    );
}

#[test]
fn every_pass_that_makes_a_mask_is_joined() {
    for pass in PASSES {
        let functions = format!("passes/{}", pass.name);
        let is_joined = |joined: &&Shader| joined.files.contains(&functions.as_str());
        // The sums are the host's before it has factors.
        let is_expected = pass.name != "weight_sums";
        assert_eq!(FUSED.iter().any(is_joined), is_expected, "{functions}");
    }
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

// --- Every back end.

#[test]
fn every_entry_point_becomes_spirv() {
    each_entry_point(|what, module, info, _, entry| {
        let pipeline = spv::PipelineOptions {
            shader_stage: ShaderStage::Compute,
            entry_point: entry.to_owned(),
        };
        let words = spv::write_vec(module, info, &spv::Options::default(), Some(&pipeline));
        let words = words.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(words.first(), Some(&0x0723_0203), "{what}");
    });
}

/// What must hold of the text for Metal and DX12, which cannot be run on every machine that tests: no type that a back
/// end lacks, and no integer division by a number that is only known later without the guard against 0.
fn check_text(what: &str, text: &str, module: &Module) {
    for ty in ["half", "half2", "bfloat", "double", "float16_t", "int64_t"] {
        let is_word = |word: &str| word == ty;
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(!words.any(is_word), "{what}: {ty}");
    }
    let mut divides = false;
    each_expression(module, |arena, expression| {
        use naga::BinaryOperator::{Divide, Modulo};
        if let Expression::Binary {
            op: Divide | Modulo,
            right,
            ..
        } = *expression
        {
            let is_number = |handle| matches!(arena[handle], Expression::Literal(_));
            divides |=
                !is_number(right) && !text.contains("naga_div(") && !text.contains("naga_mod(");
        }
    });
    let mut integer = PASSES.iter().chain(FUSED);
    let is_integer = integer.any(|pass| what.starts_with(pass.name));
    assert!(!(divides && is_integer), "{what}: an unguarded division");
}

#[test]
fn every_entry_point_becomes_metal() {
    each_entry_point(|what, module, info, index, entry| {
        for lang_version in [(2, 0), (2, 4)] {
            let options = msl::Options {
                lang_version,
                ..msl::Options::default()
            };
            let pipeline = msl::PipelineOptions {
                entry_point: Some((ShaderStage::Compute, entry.to_owned())),
                ..msl::PipelineOptions::default()
            };
            let (text, reflection) = msl::write_string(module, info, &options, &pipeline)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            // With the entry point named, the reflection holds that one alone.
            let name = reflection.entry_point_names.first();
            let name = name.unwrap_or_else(|| panic!("{what}, {index}: none was written"));
            let name = name.as_ref().unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(text.contains(&format!("kernel void {name}(")), "{what}");
            check_text(what, &text, module);
            let buffers = text.matches("[[buffer(").count();
            assert!(buffers <= 31, "{what}: {buffers} buffers, and Metal has 31");
        }
    });
}

#[test]
fn every_entry_point_becomes_hlsl() {
    each_entry_point(|what, module, info, _, entry| {
        for shader_model in [
            hlsl::ShaderModel::V5_0,
            hlsl::ShaderModel::V5_1,
            hlsl::ShaderModel::V6_0,
        ] {
            let options = hlsl::Options {
                shader_model,
                ..hlsl::Options::default()
            };
            let pipeline = hlsl::PipelineOptions {
                entry_point: Some((ShaderStage::Compute, entry.to_owned())),
            };
            let mut text = String::new();
            hlsl::Writer::new(&mut text, &options, &pipeline)
                .write(module, info, None)
                .unwrap_or_else(|error| panic!("{what}, {shader_model:?}: {error}"));
            assert!(text.contains(&format!("void {entry}(")), "{what}:\n{text}");
            check_text(what, &text, module);
        }
    });
}

/// Every expression of a module, with the arena it lies in.
fn each_expression(module: &Module, mut check: impl FnMut(&naga::Arena<Expression>, &Expression)) {
    let functions = module.functions.iter().map(|(_, function)| function);
    let entry_points = module.entry_points.iter().map(|entry| &entry.function);
    for function in functions.chain(entry_points) {
        for (_, expression) in function.expressions.iter() {
            check(&function.expressions, expression);
        }
    }
}

/// The literal that an expression is, if it is one.
fn literal(arena: &naga::Arena<Expression>, handle: naga::Handle<Expression>) -> Option<i64> {
    match arena[handle] {
        Expression::Literal(naga::Literal::U32(value)) => Some(value.into()),
        Expression::Literal(naga::Literal::I32(value)) => Some(value.into()),
        _ => None,
    }
}

/// A shift by 32 or more, or an integer division by 0, that is written out; Metal and HLSL leave both undefined.
fn undefined_arithmetic(module: &Module) -> Vec<String> {
    use naga::BinaryOperator::{Divide, Modulo, ShiftLeft, ShiftRight};

    let mut found = Vec::new();
    each_expression(module, |arena, expression| {
        if let Expression::Binary { op, right, .. } = *expression {
            match (op, literal(arena, right)) {
                (ShiftLeft | ShiftRight, Some(by)) if !(0..32).contains(&by) => {
                    found.push(format!("a shift by {by}"));
                }
                (Divide | Modulo, Some(0)) => found.push("a division by 0".to_owned()),
                _ => {}
            }
        }
    });
    found
}

#[test]
fn no_shader_shifts_by_32_or_divides_by_0() {
    for pass in shaders() {
        let (module, _) = module(pass);
        assert_eq!(undefined_arithmetic(&module), [""; 0], "{}", pass.name);
    }
    for (expression, wrong) in [
        ("x << 31u", 0),
        ("x / y", 0),
        ("x >> 32u", 1),
        ("x % 0u", 1),
    ] {
        let wgsl = format!("fn f(x: u32, y: u32) -> u32 {{ return {expression}; }}");
        let module = naga::front::wgsl::parse_str(&wgsl).expect("WGSL");
        assert_eq!(undefined_arithmetic(&module).len(), wrong, "{expression}");
    }
}

/// Float operations of the passes that a compiler may round otherwise than one by one: fused, reassociated, by an
/// approximate division. Metal compiles with fast arithmetic, the others may contract a product and a sum.
fn rearrangeable(module: &Module, info: &ModuleInfo) -> Vec<String> {
    use naga::BinaryOperator::{Add, Divide, Modulo, Multiply, Subtract};

    let mut found = Vec::new();
    let functions = module
        .functions
        .iter()
        .map(|(handle, function)| (function, &info[handle]));
    let entry_points = module.entry_points.iter().enumerate();
    let entry_points =
        entry_points.map(|(index, entry)| (&entry.function, info.get_entry_point(index)));
    for (function, info) in functions.chain(entry_points) {
        let is_float = |handle: naga::Handle<Expression>| {
            let kind = info[handle].ty.inner_with(&module.types).scalar_kind();
            kind == Some(naga::ScalarKind::Float)
        };
        // Scaling by a power of two rounds nothing, so it may go anywhere.
        let is_power_of_two = |handle: naga::Handle<Expression>| match function.expressions[handle]
        {
            Expression::Literal(naga::Literal::F32(x)) => x.to_bits() & 0x007f_ffff == 0,
            Expression::As {
                expr,
                convert: None,
                ..
            } => literal(&function.expressions, expr).is_some_and(|bits| bits & 0x007f_ffff == 0),
            _ => false,
        };
        let rounds = |handle: naga::Handle<Expression>| match function.expressions[handle] {
            Expression::Binary { op, left, right } if is_float(handle) => {
                let is_scaling = is_power_of_two(left) || is_power_of_two(right);
                !(op == Multiply && is_scaling)
            }
            _ => false,
        };
        for (handle, expression) in function.expressions.iter() {
            match *expression {
                _ if !is_float(handle) => {}
                Expression::Binary {
                    op: Divide | Modulo,
                    ..
                } => {
                    found.push("a float division".to_owned());
                }
                Expression::Binary {
                    op: Add | Subtract | Multiply,
                    left,
                    right,
                } if rounds(left) || rounds(right) => {
                    found.push("a float operation on the result of another".to_owned());
                }
                Expression::Math { fun, .. } => found.push(format!("{fun:?} of a float")),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn the_passes_leave_no_float_operation_to_fuse_or_reorder() {
    for pass in PASSES.iter().chain(FUSED) {
        let (module, info) = module(pass);
        assert_eq!(rearrangeable(&module, &info), [""; 0], "{}", pass.name);
    }
    for (expression, wrong) in [
        ("x * y", 0),
        ("x * (y * 0.25)", 0),
        ("x * y + 1.0", 1),
        ("x * (y * 0.3)", 1),
        ("x / y", 1),
        ("sqrt(x)", 1),
    ] {
        let wgsl = format!("fn f(x: f32, y: f32) -> f32 {{ return {expression}; }}");
        let (module, info) = parse(&wgsl).expect("WGSL");
        assert_eq!(rearrangeable(&module, &info).len(), wrong, "{expression}");
    }
}

#[test]
fn every_number_is_of_32_bits_as_not_every_back_end_has_others() {
    for pass in shaders() {
        let (module, _) = module(pass);
        for (_, ty) in module.types.iter() {
            let scalar = match ty.inner {
                TypeInner::Scalar(scalar)
                | TypeInner::Atomic(scalar)
                | TypeInner::Vector { scalar, .. } => scalar,
                TypeInner::Array { .. } | TypeInner::Struct { .. } => continue,
                ref other => panic!("{}: {other:?} is new here", pass.name),
            };
            let is_bool = scalar.kind == naga::ScalarKind::Bool;
            assert!(is_bool || scalar.width == 4, "{}: {scalar:?}", pass.name);
        }
    }
}

#[test]
fn every_entry_point_becomes_glsl() {
    each_entry_point(|what, module, info, _, entry| {
        for version in [glsl::Version::new_gles(310), glsl::Version::Desktop(430)] {
            let options = glsl::Options {
                version,
                ..glsl::Options::default()
            };
            let pipeline = glsl::PipelineOptions {
                shader_stage: ShaderStage::Compute,
                entry_point: entry.to_owned(),
                multiview: None,
            };
            let mut text = String::new();
            let policies = BoundsCheckPolicies::default();
            glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
                .and_then(|mut writer| writer.write())
                .unwrap_or_else(|error| panic!("{what}, {version}: {error}"));
            assert!(text.contains("void main()"), "{what}, {version}");
        }
    });
}

// --- Limits.

#[test]
fn workgroups_have_at_most_256_invocations_in_a_row() {
    each_entry_point(|what, module, _, index, _| {
        let [x, y, z] = module.entry_points[index].workgroup_size;
        assert!((1..=INVOCATIONS).contains(&x), "{what}: {x}");
        assert_eq!((y, z), (1, 1), "{what}");
        let overrides = module.entry_points[index].workgroup_size_overrides;
        assert!(overrides.is_none(), "{what}: naga checks no override");
    });
}

#[test]
fn workgroup_memory_is_at_most_16_kib_but_for_the_shader_that_is_used_where_there_is_more() {
    each_entry_point(|what, module, info, index, _| {
        let bytes = used(module, info, index, |space| {
            *space == AddressSpace::WorkGroup
        })
        .iter()
        .map(|&ty| module.types[ty].inner.size(module.to_ctx()))
        .sum::<u32>();
        let most = if what.starts_with("wide_rows") {
            WIDE_WORKGROUP_BYTES
        } else {
            WORKGROUP_BYTES
        };
        assert!(bytes <= most, "{what}: {bytes} bytes");
    });
}

#[test]
fn an_entry_point_has_at_most_4_storage_buffers() {
    let mut most = 0;
    each_entry_point(|what, module, info, index, _| {
        let is_storage = |space: &AddressSpace| matches!(space, AddressSpace::Storage { .. });
        let buffers = used(module, info, index, is_storage).len();
        assert!(buffers <= STORAGE_BUFFERS, "{what}: {buffers}");
        most = most.max(buffers);
    });
    assert!(
        most > 1,
        "the score reads weights and factors and writes keys"
    );
}

#[test]
fn every_binding_is_in_group_0_and_no_two_share_a_number() {
    for pass in shaders() {
        let (module, _) = module(pass);
        let mut numbers: Vec<u32> = Vec::new();
        for (_, variable) in module.global_variables.iter() {
            if let Some(binding) = &variable.binding {
                assert_eq!(binding.group, 0, "{}: {:?}", pass.name, variable.name);
                numbers.push(binding.binding);
            }
        }
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|w| w[0] != w[1]), "{}", pass.name);
    }
}

/// The types of the variables in such an address space that the entry point uses.
fn used(
    module: &Module,
    info: &ModuleInfo,
    index: usize,
    space: impl Fn(&AddressSpace) -> bool,
) -> Vec<naga::Handle<naga::Type>> {
    let entry = info.get_entry_point(index);
    module
        .global_variables
        .iter()
        .filter(|(handle, variable)| !entry[*handle].is_empty() && space(&variable.space))
        .map(|(_, variable)| variable.ty)
        .collect()
}

// --- The uniform block.

/// Name and offset of every field of `struct Params`, and its size, as the WGSL has them.
fn params_in_wgsl(module: &Module) -> (Vec<(String, usize)>, usize) {
    let (_, variable) = module
        .global_variables
        .iter()
        .find(|(_, variable)| variable.space == AddressSpace::Uniform)
        .expect("every shader reads a uniform block");
    let TypeInner::Struct { members, .. } = &module.types[variable.ty].inner else {
        panic!("the uniform block is no struct");
    };
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).expect("a valid module");
    let members = members
        .iter()
        .map(|member| {
            let scalar = module.types[member.ty].inner.scalar();
            assert!(scalar.is_some_and(|s| s.width == 4), "{:?}", member.name);
            let name = member.name.clone().expect("WGSL names every member");
            (name, member.offset as usize)
        })
        .collect();
    (members, layouter[variable.ty].size as usize)
}

/// Fails with the first field that is not where the Rust side has it.
fn compare_params(
    wgsl: &str,
    (expected, size): (&[(&'static str, usize)], usize),
) -> Result<(), String> {
    let (module, _) = parse(wgsl)?;
    let (found, found_size) = params_in_wgsl(&module);
    for (i, (name, offset)) in expected.iter().enumerate() {
        match found.get(i) {
            Some((found, at)) if found == name && at == offset => {}
            other => return Err(format!("{name} at {offset} in Rust, {other:?} in WGSL")),
        }
    }
    if (found.len(), found_size) != (expected.len(), size) {
        let (fields, expected) = (found.len(), expected.len());
        return Err(format!(
            "{expected} fields and {size} bytes in Rust, {fields} and {found_size} in WGSL"
        ));
    }
    Ok(())
}

#[test]
fn params_are_the_same_in_wgsl_and_in_rust() {
    for pass in PASSES {
        compare_params(pass.wgsl, params_layout())
            .unwrap_or_else(|error| panic!("{}: {error}", pass.name));
    }
    for joined in FUSED {
        compare_params(joined.wgsl, params_layout()).expect(joined.name);
    }
    for Kernel {
        shader: pass,
        layout,
    } in KERNELS
    {
        let size = layout.last().map_or(0, |(_, offset)| offset + 4);
        compare_params(pass.wgsl, (layout, size))
            .unwrap_or_else(|error| panic!("{}: {error}", pass.name));
    }
}

#[test]
fn params_that_differ_in_order_name_length_or_width_are_noticed() {
    let wgsl = PASSES[0].wgsl;
    for (field, changed) in [
        (
            "rows: u32,\n    in_features: u32,",
            "in_features: u32,\n    rows: u32,",
        ),
        ("below: u32,", "lower: u32,"),
        ("mask_words: u32,", ""),
        ("n: u32,\n    m: u32,", "n: vec2<u32>,\n    m: u32,"),
        ("padding: u32,", ""),
        ("padding: u32,", "padding: u32,\n    more: vec4<u32>,"),
    ] {
        let other = wgsl.replacen(field, changed, 1);
        assert_ne!(other, wgsl, "{field} is not in the shader");
        let error = compare_params(&other, params_layout()).expect_err(changed);
        // The comparator's words, not those of a shader that does not parse.
        assert!(error.contains("in Rust"), "{field} -> {changed}: {error}");
    }
}
