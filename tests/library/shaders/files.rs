//! The WGSL files: each says what it needs, shaders are made of just these, and the passes' have twins.

use std::collections::BTreeSet;
use std::path::Path;

use swiftprune_wgpu::internals::{COMPENSATE, FORWARD_KERNELS, FUSED, PASSES, PRODUCT, Shader};

use super::shaders;

/// Every shader, and the folder of the file that has its entry points.
fn shaders_and_folders() -> impl Iterator<Item = (&'static Shader, &'static str)> {
    let alone = PASSES.iter().map(|shader| (*shader, "entry/alone"));
    let fused = FUSED.iter().map(|shader| (*shader, "entry/fused"));
    let forward = FORWARD_KERNELS
        .iter()
        .map(|kernel| (&kernel.shader, "forward"));
    let shared = [&PRODUCT, &COMPENSATE].map(|kernel| (&kernel.shader, "kernels"));
    alone.chain(fused).chain(forward).chain(shared)
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
