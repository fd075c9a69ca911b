;; Takes and touches all the memory that it may, and lives with the refusal of more.
;; expect: succeeded

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 16)))))
  (memory.fill (i32.const 65536) (i32.const 1) (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 65536)))
  (i32.const 1024))
