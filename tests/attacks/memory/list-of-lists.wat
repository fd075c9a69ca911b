;; Passes 300,000 fields in one call, each with a name and a value of a kilobyte that are all the same bytes.
;; expect: trapped
;; says: fuel allocated for hostcalls has been exhausted
;; limits: fuel=50M

(import "flowstone:asset/output@0.1.0" "set-metadata" (func $set_metadata (param i32 i32 i32)))
(memory (export "memory") 100)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $at i32)
  (local.set $at (i32.const 131072))
  (loop $again
    (i32.store (local.get $at) (i32.const 65536)) (i32.store offset=4 (local.get $at) (i32.const 1024))
    (i32.store offset=8 (local.get $at) (i32.const 65536)) (i32.store offset=12 (local.get $at) (i32.const 1024))
    (local.set $at (i32.add (local.get $at) (i32.const 16)))
    (br_if $again (i32.lt_u (local.get $at) (i32.const 4931072))))
  (call $set_metadata (i32.const 131072) (i32.const 300000) (i32.const 2048))
  (i32.const 1024))
