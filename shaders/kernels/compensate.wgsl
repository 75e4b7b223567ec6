// Rows of a matrix, compensated: what lies between the products with H. A workgroup is a row, and each lane keeps to its columns.
//
// The numbers of all rows are planes of one buffer, [rows, in_features] each: what is multiplied, its product, the values, the
// residual, the weights. A product with H = D + U U^T begins with D times the input here; product.wgsl adds the rest. sums holds
// four numbers a row.
//
// Twin: src/compensation/compensate.rs, in f32 to the last bits but not beyond.
//
// Needs: shared/reduce

struct Compensate {
    in_features: u32,
    // Weights of all rows: from one plane to the next.
    plane: u32,
    // u32 words of the mask a row.
    mask_words: u32,
}

@group(0) @binding(0) var<uniform> params: Compensate;
@group(0) @binding(1) var<storage, read_write> planes: array<f32>;
// D, of H or of the inverse.
@group(0) @binding(2) var<storage, read> diagonal: array<f32>;
// One bit a weight, 1 = pruned.
@group(0) @binding(3) var<storage, read> mask: array<u32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

const LANES: u32 = 256u;

// The planes.
const INPUT: u32 = 0u;
const PRODUCT: u32 = 1u;
const VALUES: u32 = 2u;
const RESIDUAL: u32 = 3u;
const WEIGHTS: u32 = 4u;

// The sums of a row: its error if it were only pruned, that of the values to start from, what is left of it, and the square of
// the residual.
const PRUNED_ALONE: u32 = 0u;
const START: u32 = 1u;
const LEFT: u32 = 2u;
const SQUARE: u32 = 3u;

fn at(plane: u32, row: u32, column: u32) -> u32 {
    return plane * params.plane + row * params.in_features + column;
}

// A weight that is zero already is never filled.
fn is_kept(row: u32, column: u32) -> bool {
    let word = mask[row * params.mask_words + column / 32u];
    return (word >> (column % 32u) & 1u) == 0u && planes[at(WEIGHTS, row, column)] != 0.0;
}

// What is multiplied next.
fn set_input(row: u32, column: u32, value: f32) {
    planes[at(INPUT, row, column)] = value;
    planes[at(PRODUCT, row, column)] = diagonal[column] * value;
}

fn input_times_product(row: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var column = lane; column < params.in_features; column += LANES) {
        sum += planes[at(INPUT, row, column)] * planes[at(PRODUCT, row, column)];
    }
    return sum_of_lanes(lane, sum);
}

// The values are the weights that are kept.
@compute @workgroup_size(256)
fn prune_values(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var column = lane; column < params.in_features; column += LANES) {
        let weight = planes[at(WEIGHTS, group.x, column)];
        planes[at(VALUES, group.x, column)] = select(0.0, weight, is_kept(group.x, column));
    }
}

// The error of the values is multiplied.
@compute @workgroup_size(256)
fn input_error(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var column = lane; column < params.in_features; column += LANES) {
        let weight = planes[at(WEIGHTS, group.x, column)];
        set_input(group.x, column, weight - planes[at(VALUES, group.x, column)]);
    }
}

// The output error of each row, whose error was multiplied.
@compute @workgroup_size(256)
fn row_errors(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let error = input_times_product(group.x, lane);
    if lane == 0u {
        sums[group.x * 4u + PRUNED_ALONE] = error;
    }
}

// The alternating directions begin: Z and Y in one, in the product's place, are the values.
@compute @workgroup_size(256)
fn begin_directions(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var column = lane; column < params.in_features; column += LANES) {
        planes[at(PRODUCT, group.x, column)] = planes[at(VALUES, group.x, column)];
    }
}

// Z - Y - W is multiplied with the inverse, whose diagonal this is; to the product come W and Y.
@compute @workgroup_size(256)
fn input_directions(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var column = lane; column < params.in_features; column += LANES) {
        let both = planes[at(PRODUCT, group.x, column)];
        let weight = planes[at(WEIGHTS, group.x, column)];
        let is_kept = is_kept(group.x, column);
        let wanted = select(-both, both, is_kept) - weight;
        planes[at(INPUT, group.x, column)] = wanted;
        planes[at(PRODUCT, group.x, column)] = weight + diagonal[column] * wanted + select(both, 0.0, is_kept);
    }
}

// Scores to choose a mask by, where the input was.
@compute @workgroup_size(256)
fn score_directions(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var column = lane; column < params.in_features; column += LANES) {
        let score = planes[at(PRODUCT, group.x, column)];
        let is_zero = planes[at(WEIGHTS, group.x, column)] == 0.0;
        planes[at(INPUT, group.x, column)] = select(score, 0.0, is_zero);
    }
}

// The values are what the directions have come to.
@compute @workgroup_size(256)
fn end_directions(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var column = lane; column < params.in_features; column += LANES) {
        let value = planes[at(PRODUCT, group.x, column)];
        planes[at(VALUES, group.x, column)] = select(0.0, value, is_kept(group.x, column));
    }
}

// The conjugate gradients begin: of the values' error, which was multiplied.
@compute @workgroup_size(256)
fn begin_descent(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let start = input_times_product(group.x, lane);
    var part = 0.0;
    for (var column = lane; column < params.in_features; column += LANES) {
        let product = planes[at(PRODUCT, group.x, column)];
        let residual = select(0.0, product, is_kept(group.x, column));
        planes[at(RESIDUAL, group.x, column)] = residual;
        set_input(group.x, column, residual);
        part += residual * residual;
    }
    let square = sum_of_lanes(lane, part);
    if lane == 0u {
        sums[group.x * 4u + START] = start;
        sums[group.x * 4u + LEFT] = start;
        sums[group.x * 4u + SQUARE] = square;
    }
}

// One step of the conjugate gradients, along the direction that was multiplied.
@compute @workgroup_size(256)
fn descend(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let curvature = input_times_product(group.x, lane);
    let square = sums[group.x * 4u + SQUARE];
    // A row that is there already, or that rounding has worn down, stays.
    let goes_on = curvature > 0.0 && square > 0.0;
    var step = 0.0;
    if goes_on {
        step = square / curvature;
    }
    var part = 0.0;
    for (var column = lane; column < params.in_features; column += LANES) {
        planes[at(VALUES, group.x, column)] += step * planes[at(INPUT, group.x, column)];
        var residual = planes[at(RESIDUAL, group.x, column)];
        if is_kept(group.x, column) {
            residual -= step * planes[at(PRODUCT, group.x, column)];
        }
        planes[at(RESIDUAL, group.x, column)] = residual;
        part += residual * residual;
    }
    let now = sum_of_lanes(lane, part);
    var ratio = 0.0;
    if goes_on {
        ratio = now / square;
    }
    for (var column = lane; column < params.in_features; column += LANES) {
        var direction = planes[at(INPUT, group.x, column)];
        if goes_on {
            direction = planes[at(RESIDUAL, group.x, column)] + ratio * direction;
        }
        set_input(group.x, column, direction);
    }
    if lane == 0u && goes_on {
        sums[group.x * 4u + LEFT] -= step * square;
        sums[group.x * 4u + SQUARE] = now;
    }
}
