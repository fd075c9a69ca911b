;; Loops for ever in `cabi_realloc` while a host function returns a list.
;; expect: out-of-fuel
;; limits: fuel=20M

(import "wasi:random/random@0.2.12" "get-random-bytes" (func $random_bytes (param i64 i32)))
(global $calls (mut i32) (i32.const 0))
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
  ;; The first call is for the asset's name.
  (if (i32.gt_u (global.get $calls) (i32.const 1)) (then (loop $again (br $again))))
  (i32.const 65536))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $random_bytes (i64.const 100) (i32.const 2048))
  (i32.const 1024))
