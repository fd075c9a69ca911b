//! The Rust side of the WIT package: the single `bindgen!` of the host.
//!
//! Only what the macro makes is here. Which of it is linked, and with what behind it, is decided in
//! [`crate::engine`]; the behaviour is in [`crate::capability`]. Host functions are synchronous where they only wait for
//! this machine: they run on the guest's thread, which may block. Those that wait for the network are not, and leave the
//! thread to other guests meanwhile.

#![expect(missing_docs, reason = "generated; the documentation is in wit/")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "flowstone:asset/everything",
    imports: {
        "flowstone:asset/http.[method]client.send": async | trappable,
        "flowstone:asset/http.[method]response.read": async | trappable,
        "flowstone:asset/sql": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    trappable_error_type: {
        "flowstone:asset/types.capability-error" => crate::capability::Refusal,
    },
    include_component_type: true,
});
