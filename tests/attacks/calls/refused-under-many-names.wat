;; Asks for inputs under ever new names of a kilobyte, to fill the record of what it was refused.
;; expect: timed-out
;; limits: fuel=1T timeout=500ms

(import "flowstone:asset/inputs@0.1.0" "open" (func $open_input (param i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (i64.store (i32.const 4096) (i64.add (i64.load (i32.const 4096)) (i64.const 1))) (i64.store (i32.const 4096) (i64.and (i64.load (i32.const 4096)) (i64.const 0x7f7f7f7f7f7f7f))) (call $open_input (i32.const 4096) (i32.const 1024) (i32.const 0) (i32.const 2048)) (br $again)) unreachable)
