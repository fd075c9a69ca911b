;; Calls the host after it has returned.
;; expect: trapped
;; says: cannot leave component instance

(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
(func (export "cabi_post_flowstone:asset/materializer@0.1.0#materialize") (param i32)
  (call $log (i32.const 2) (i32.const 4096) (i32.const 1) (i32.const 0) (i32.const 0)))
