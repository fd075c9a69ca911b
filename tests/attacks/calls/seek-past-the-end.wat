;; Goes to an offset past any file.
;; expect: failed
;; says: past the end

(import "flowstone:asset/inputs@0.1.0" "open" (func $open_input (param i32 i32 i32 i32)))
(import "flowstone:asset/inputs@0.1.0" "[method]reader.seek" (func $seek (param i32 i64 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $reader i32)
  (call $open_input (i32.const 4096) (i32.const 3) (i32.const 0) (i32.const 2048))
  (local.set $reader (i32.load (i32.const 2052)))
  (call $seek (local.get $reader) (i64.const -1) (i32.const 2048))
  (drop (call $refused))
  (i32.const 1024))
(data (i32.const 4096) "raw")
