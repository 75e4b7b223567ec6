# The tools that the page is built with, and whether they are here. For scripts that stand in the repository's root.

page_target=wasm32-unknown-unknown
bindgen_version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)

has_page_target() {
    [[ -d $("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/$page_target/lib ]]
}

has_bindgen() {
    [[ $(wasm-bindgen --version 2>/dev/null) == "wasm-bindgen $bindgen_version" ]]
}
