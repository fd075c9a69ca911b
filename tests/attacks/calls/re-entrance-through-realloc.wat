;; Calls the host from `cabi_realloc`, while the host is in the middle of a call.
;; expect: trapped
;; says: cannot leave component instance

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (call $log (i32.const 2) (i32.const 4096) (i32.const 1) (i32.const 0) (i32.const 0))
  (i32.const 65536))
