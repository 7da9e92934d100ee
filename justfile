# Shortcuts for the commands that people type. The scripts do the work.

# List the recipes.
default:
    @just --list

# Build the program for use: target/release/bsonvault.
build:
    cargo build --locked --release --package bsonvault --bin bsonvault

# Run every check and every test, against real servers.
test *ARGS:
    scripts/test {{ARGS}}

# Run the tests whose names contain NAME, in all test programs.
test-one NAME:
    MONGOD="$(scripts/mongod)" cargo test --locked {{NAME}}

# Back up, verify and restore sample data between two servers that it starts.
demo:
    scripts/demo

# Write the reference pages again, and build the book into target/book.
docs:
    cargo run --locked --example reference
    mdbook build

# Run a benchmark: cpu, end_to_end, replay or service.
bench NAME *ARGS:
    cargo bench --bench {{NAME}} -- {{ARGS}}

# Ask the running service whether it keeps its OpenAPI contract.
contract *ARGS:
    scripts/contract {{ARGS}}

# Fuzz every target: fuzz [SECONDS] [TARGET...].
fuzz *ARGS:
    scripts/fuzz {{ARGS}}
