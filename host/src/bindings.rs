//! The Rust side of the WIT package: the single `bindgen!` of the host.
//!
//! Only what the macro makes is here. Which of it is linked, and with what behind it, is decided in
//! [`crate::engine`]; the behaviour is in [`crate::capability`]. Host functions are synchronous: they run on the
//! guest's thread, which may block, and a guest that waits has nothing else to do.

#![expect(missing_docs, reason = "generated; the documentation is in wit/")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "flowstone:asset/everything",
    imports: { default: trappable },
    exports: { default: async },
    trappable_error_type: {
        "flowstone:asset/types.capability-error" => crate::capability::Refusal,
    },
    include_component_type: true,
});
